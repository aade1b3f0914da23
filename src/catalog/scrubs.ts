/** Walks through all images: when, and what was found. */
import type { Selectable } from 'kysely';
import type { Catalog } from './database.ts';
import type { ScrubTable } from './schema.ts';

export type ScrubRecord = Selectable<ScrubTable>;

const KEPT = 50;

/** @returns the new one's id */
export async function insertScrub(catalog: Catalog, startedAt: string): Promise<number> {
  const { insertId } = await catalog
    .insertInto('scrubs')
    .values({ startedAt, finishedAt: null })
    .executeTakeFirstOrThrow();
  const id = Number(insertId);
  await catalog
    .deleteFrom('scrubs')
    .where('id', '<=', id - KEPT)
    .execute();
  return id;
}

export async function updateScrub(
  catalog: Catalog,
  id: number,
  values: Partial<Pick<ScrubRecord, 'finishedAt' | 'verified' | 'damaged' | 'skipped'>>,
): Promise<void> {
  await catalog.updateTable('scrubs').set(values).where('id', '=', id).execute();
}

export async function lastScrub(catalog: Catalog): Promise<ScrubRecord | undefined> {
  return catalog.selectFrom('scrubs').selectAll().orderBy('id', 'desc').executeTakeFirst();
}
