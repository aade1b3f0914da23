/**
 * A catalog that says less than what stands beside the images is not the one that this home had: it is missing, or a backup
 * was put back. A daemon that began with it would remove as strays what only the lost one knew.
 */
import { join } from 'node:path';
import type { CatalogDatabase } from '../catalog/database.ts';
import { outdateRecord, recordVersions } from '../catalog/records.ts';
import { namesIn } from '../directory.ts';
import { catalogDamaged } from '../errors.ts';
import { GUEST_FILE, readGuestFile } from './record-files.ts';

/** @throws StasisError `catalog-damaged` naming what it doesn't know */
export async function refuseOutdated(catalog: CatalogDatabase, data: string): Promise<void> {
  const finding = await whyOutdated(catalog, data);
  if (finding !== undefined) throw catalogDamaged(finding);
}

/** Records of guests that are lost or damaged are to be written again, as long as the catalog can tell what stood in them. */
export async function markLost(catalog: CatalogDatabase, data: string): Promise<void> {
  for (const [uuid, version] of await recordVersions(catalog, 'guest')) {
    const read = await readGuestFile(join(data, 'guests', uuid));
    if ('whyNot' in read) await outdateRecord(catalog, { kind: 'guest', id: uuid, version });
  }
}

/** In words; undefined when it is the newest that there was. */
export async function whyOutdated(catalog: CatalogDatabase, data: string): Promise<string | undefined> {
  const root = join(data, 'guests');
  const names = await namesIn(root);
  const versions = await recordVersions(catalog, 'guest');
  if (names.length > 0 && versions.size === 0 && (await isNew(catalog)))
    return `it is empty, but there are guests in ${root}`;
  for (const uuid of names) {
    const read = await readGuestFile(join(root, uuid));
    if ('whyNot' in read) continue; // an operation left the directory, or its record is damaged: nothing to compare with
    const known = versions.get(uuid) ?? 0;
    if (known < read.file.version)
      return `it is older than ${join(root, uuid, GUEST_FILE)} (guest ${read.file.name}), as if a backup had been put back`;
  }
  return undefined;
}

/** Nothing was ever done with it: whatever a daemon does is an operation. */
async function isNew(catalog: CatalogDatabase): Promise<boolean> {
  return (await catalog.selectFrom('operations').select('id').limit(1).execute()).length === 0;
}
