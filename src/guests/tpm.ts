/**
 * Where a guest's TPM keeps its state: a directory for each process that is, or is about to be, the guest, for no two may
 * share one. The catalog names the present one; a restore begins a new, empty one, which the image's stream fills.
 */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { getGuestByUuid } from '../catalog/guests.ts';
import { namesIn } from '../directory.ts';
import { removeShared } from '../qemu/process/run-files.ts';
import type { Definition } from './definition.ts';
import { guestDirectory } from './disks.ts';
import type { Host } from './host.ts';

/** Of a guest without a TPM: undefined. */
export function tpmDirectory({ paths }: Host, { uuid, tpm }: Definition, name: string): string | undefined {
  return tpm === true ? join(tpmRoot(paths.data, uuid), name) : undefined;
}

/** Removes what the guest's TPM was before, or was about to be. Repeatable; not while another process is loaded. */
export async function removeOldTpms({ catalog, paths }: Host, uuid: string): Promise<void> {
  const { tpm } = await getGuestByUuid(catalog, uuid);
  const root = tpmRoot(paths.data, uuid);
  for (const name of await namesIn(root)) if (name !== tpm) await removeShared(join(root, name));
}

/** Removes all that is in a guest's directory. Repeatable. */
export async function removeGuestDirectory(data: string, uuid: string): Promise<void> {
  const tpms = tpmRoot(data, uuid);
  for (const name of await namesIn(tpms)) await removeShared(join(tpms, name));
  // Its record may be being written; when the catalog no longer knows the guest, that goes too.
  await rm(guestDirectory(data, uuid).root, { recursive: true, force: true, maxRetries: 5 });
}

function tpmRoot(data: string, uuid: string): string {
  return join(guestDirectory(data, uuid).root, 'tpm');
}
