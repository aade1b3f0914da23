/** A home without its catalog, and the command that makes it again. */
import assert from 'node:assert/strict';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { guestDirectory } from '../../src/guests/disks.ts';
import { catalogFile } from '../../src/paths.ts';
import type { RebuildReport } from '../../src/recovery/rebuild.ts';
import { GUEST_FILE } from '../../src/recovery/record-files.ts';
import { fromStored } from '../../src/stored.ts';
import type { Lab } from './lab.ts';

export async function loseCatalog({ paths }: Pick<Lab, 'paths'>): Promise<void> {
  for (const suffix of ['', '-wal', '-shm']) await rm(catalogFile(paths) + suffix, { force: true });
}

/** The guest's own record; those of its images stay. */
export async function loseGuestFile({ paths }: Pick<Lab, 'paths'>, uuid: string): Promise<void> {
  await rm(join(guestDirectory(paths.data, uuid).root, GUEST_FILE));
}

export async function rebuild(lab: Pick<Lab, 'cli'>, ...options: readonly string[]): Promise<RebuildReport> {
  const { status, stdout, stderr } = await lab.cli(['catalog', 'rebuild', '--json', ...options]);
  assert.equal(status, 0, stderr);
  return fromStored<RebuildReport>(stdout);
}
