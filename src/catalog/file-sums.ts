/** Checksums of what images hold and nobody writes to: layers and memory files. What they are of, storage/file-sum.ts says. */
import type { Selectable } from 'kysely';
import type { Catalog } from './database.ts';
import { findImageById } from './images.ts';
import { findLayer } from './layers.ts';
import type { FileSumTable } from './schema.ts';

export type FileSumRecord = Pick<
  Selectable<FileSumTable>,
  'sha256' | 'sizeBytes' | 'pieces' | 'seal' | 'recordedAt'
>;

/** Whose file it is. */
export type SumOwner = { readonly layer: string } | { readonly image: string };

const COLUMNS = ['sha256', 'sizeBytes', 'pieces', 'seal', 'recordedAt'] as const;

/** What is known of a file's content. */
export async function findFileSum(catalog: Catalog, owner: SumOwner): Promise<FileSumRecord | undefined> {
  const query = catalog.selectFrom('fileSums').select(COLUMNS);
  return 'layer' in owner
    ? query.where('layer', '=', owner.layer).executeTakeFirst()
    : query.where('image', '=', owner.image).executeTakeFirst();
}

/**
 * Remembers what a file held, unless it is gone, or may have been written to, since it was read: its seal is another then. In a transaction.
 * @param record.seal of a layer: the seal that it had before it was read
 * @returns whether it was remembered
 */
export async function keepFileSum(
  catalog: Catalog,
  owner: SumOwner,
  record: FileSumRecord,
): Promise<boolean> {
  if ('layer' in owner) {
    const layer = await findLayer(catalog, owner.layer);
    if (layer === undefined || layer.identity === null || layer.identity !== record.seal) return false;
    await catalog.deleteFrom('fileSums').where('layer', '=', owner.layer).execute();
    await catalog
      .insertInto('fileSums')
      .values({ ...record, layer: owner.layer, image: null })
      .execute();
    return true;
  }
  if ((await findImageById(catalog, owner.image)) === undefined) return false;
  await catalog.deleteFrom('fileSums').where('image', '=', owner.image).execute();
  await catalog
    .insertInto('fileSums')
    .values({ ...record, image: owner.image, layer: null })
    .execute();
  return true;
}
