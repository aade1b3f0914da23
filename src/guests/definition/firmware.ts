/** What a guest starts with: the BIOS that QEMU brings, or UEFI, whose variables are on a disk. */
import { resolve } from 'node:path';
import Type, { type Static } from 'typebox';
import type { UefiFirmware } from '../../qemu/firmware.ts';
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

/** What the host has for it. */
export interface Uefi {
  readonly firmware: UefiFirmware;
  readonly store: DiskDefinition;
}

/**
 * @returns undefined when the guest has none
 * @throws StasisError `invalid-definition`, or as `resolveFirmware` does
 */
export async function pinUefi(
  wanted: Static<typeof FirmwareInput> | undefined,
  guest: { readonly uuid: string; readonly machine: string; readonly directory: string },
  host: { resolveFirmware(wish: UefiWish): Promise<Uefi> },
): Promise<Uefi | undefined> {
  const { type, secureBoot = false, vars } = typeof wanted === 'object' ? wanted : { type: wanted };
  if (type !== 'uefi') {
    if (secureBoot || vars !== undefined) throw invalid('firmware: secureBoot and vars go with type uefi');
    return undefined;
  }
  const { uuid, machine, directory } = guest;
  return host.resolveFirmware({
    ...{ uuid, machine, secureBoot },
    vars: vars === undefined ? undefined : resolve(directory, vars),
  });
}
