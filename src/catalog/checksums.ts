/** Checksums of media by what their files look like, so that a large one is read once and not at each save. */
import type { Catalog } from './database.ts';

export async function findChecksum(
  catalog: Catalog,
  path: string,
  identity: string,
): Promise<string | undefined> {
  const found = await catalog
    .selectFrom('checksums')
    .select('sha256')
    .where('path', '=', path)
    .where('identity', '=', identity)
    .executeTakeFirst();
  return found?.sha256;
}

/** Of each file the latest is kept. */
export async function keepChecksum(
  catalog: Catalog,
  checksum: { readonly path: string; readonly identity: string; readonly sha256: string },
): Promise<void> {
  await catalog
    .insertInto('checksums')
    .values(checksum)
    .onConflict((conflict) => conflict.column('path').doUpdateSet(checksum))
    .execute();
}
