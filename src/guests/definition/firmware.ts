/** What a machine starts from. */
import { resolve } from 'node:path';
import Type, { type Static } from 'typebox';
import type { UefiFirmware } from '../../qemu/build/firmware.ts';
import type { DiskDefinition } from './disks.ts';
import { invalid, OneOf, strict } from './schema.ts';

export const FirmwareInput = Type.Union([
  OneOf('bios', 'uefi'),
  Type.Object(
    {
      type: OneOf('bios', 'uefi'),
      secureBoot: Type.Optional(Type.Boolean()),
      vars: Type.Optional(Type.String({ minLength: 1 })),
    },
    strict,
  ),
]);

/** What a definition asks of UEFI. */
export interface UefiWish {
  readonly uuid: string;
  readonly machine: string;
  readonly secureBoot: boolean;
  /** the user's own variable store */
  readonly vars: string | undefined;
}

/** The firmware that the host has for it, and the disk of its variables. */
export interface Uefi {
  readonly firmware: UefiFirmware;
  readonly store: DiskDefinition;
}

/**
 * @param resolveFirmware asks the host
 * @returns undefined for a BIOS
 * @throws StasisError `invalid-definition`, and what the host throws
 */
export async function pinUefi(
  firmware: Static<typeof FirmwareInput> | undefined,
  guest: { readonly uuid: string; readonly machine: string; readonly directory: string },
  resolveFirmware: (wanted: UefiWish) => Promise<Uefi>,
): Promise<Uefi | undefined> {
  const { type, secureBoot = false, vars } = typeof firmware === 'object' ? firmware : { type: firmware };
  if (type !== 'uefi') {
    if (secureBoot || vars !== undefined) throw invalid('firmware: secureBoot and vars go with type uefi');
    return undefined;
  }
  const { uuid, machine, directory } = guest;
  return resolveFirmware({
    ...{ uuid, machine, secureBoot },
    vars: vars === undefined ? undefined : resolve(directory, vars),
  });
}
