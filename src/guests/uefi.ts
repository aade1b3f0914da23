/** The firmware of a guest that has UEFI, and where its variables are: on a disk of its own, or one that the user brought. */
import { copyFile, mkdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { StasisError } from '../errors.ts';
import { findFirmware, type UefiFirmware } from '../qemu/build/firmware.ts';
import { syncPath } from '../storage/durable.ts';
import { VARIABLE_STORE, type Definition, type DiskDefinition, type UefiWish } from './definition.ts';
import { guestDirectory } from './disks.ts';
import type { Host } from './host.ts';

/** @throws StasisError `unsupported` when no such firmware is installed, `disk-missing`, `invalid-definition` */
export async function resolveFirmware(
  host: Host,
  { uuid, machine, secureBoot, vars }: UefiWish,
): Promise<{ readonly firmware: UefiFirmware; readonly store: DiskDefinition }> {
  const firmware = await findFirmware({ machine, secureBoot });
  const common = { name: VARIABLE_STORE, bus: 'pflash', readonly: false } as const;
  if (vars === undefined) {
    const { format } = firmware.template;
    return { firmware, store: { ...common, path: ownStore(host, uuid), format } };
  }
  const { format } = await host.ownership.whileRead(vars, () => host.imageTool.info(vars));
  if (format !== 'raw' && format !== 'qcow2')
    throw new StasisError('invalid-definition', `firmware.vars: ${vars} is ${format}, neither raw nor qcow2`);
  return { firmware, store: { ...common, path: vars, format } };
}

/** What `makeVariables` makes for a guest that isn't known yet; undefined when there is nothing to make. */
export function newVariables(
  host: Host,
  { uuid, firmware, disks }: Definition,
): { readonly path: string; readonly template: string } | undefined {
  const path = ownStore(host, uuid);
  if (firmware === 'bios' || !disks.some((disk) => disk.path === path)) return undefined;
  return { path, template: firmware.template.path };
}

/** A guest's variables as the firmware's template has them. Repeatable; the whole directory is the new guest's. */
export async function makeVariables({
  path,
  template,
}: {
  readonly path: string;
  readonly template: string;
}): Promise<void> {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  await copyFile(template, path);
  await syncPath(path);
  await syncPath(dirname(path));
  await syncPath(dirname(dirname(path)));
}

function ownStore({ paths }: Host, uuid: string): string {
  return join(guestDirectory(paths.data, uuid).root, `${VARIABLE_STORE}.fd`);
}
