/**
 * Which record files, beside the layers and images, don't yet say what the catalog says. Triggers mark them in the very
 * transaction that changes something (schema.ts); recovery/mirror.ts writes them.
 */
import type { Selectable } from 'kysely';
import type { Catalog } from './database.ts';
import type { RecordTable } from './schema.ts';

export type RecordMark = Pick<Selectable<RecordTable>, 'kind' | 'id' | 'version'>;

/** Guests before images: what an image pins is then told already by its guest's file. */
export async function unwrittenRecords(catalog: Catalog, limit: number): Promise<RecordMark[]> {
  return catalog
    .selectFrom('records')
    .select(['kind', 'id', 'version'])
    .whereRef('version', '<>', 'written')
    .orderBy('kind')
    .orderBy('id')
    .limit(limit)
    .execute();
}

export async function countUnwritten(catalog: Catalog): Promise<number> {
  const { count } = await catalog
    .selectFrom('records')
    .select((select) => select.fn.countAll<number>().as('count'))
    .whereRef('version', '<>', 'written')
    .executeTakeFirstOrThrow();
  return count;
}

/** 0 when it has none. */
export async function recordVersion(catalog: Catalog, kind: RecordMark['kind'], id: string): Promise<number> {
  const row = await catalog
    .selectFrom('records')
    .select('version')
    .where('kind', '=', kind)
    .where('id', '=', id)
    .executeTakeFirst();
  return row?.version ?? 0;
}

/** A file has that version now. What changed since it was read stays marked. */
export async function markWritten(catalog: Catalog, { kind, id, version }: RecordMark): Promise<void> {
  await catalog
    .updateTable('records')
    .set({ written: version })
    .where('kind', '=', kind)
    .where('id', '=', id)
    .execute();
}

/** There is nothing to tell any more, and no file. */
export async function forgetRecord(catalog: Catalog, { kind, id, version }: RecordMark): Promise<void> {
  await catalog
    .deleteFrom('records')
    .where('kind', '=', kind)
    .where('id', '=', id)
    .where('version', '=', version)
    .execute();
}

/** The version of each record of a kind, by whose it is. */
export async function recordVersions(
  catalog: Catalog,
  kind: RecordMark['kind'],
): Promise<Map<string, number>> {
  const rows = await catalog
    .selectFrom('records')
    .select(['id', 'version'])
    .where('kind', '=', kind)
    .execute();
  return new Map(rows.map(({ id, version }) => [id, version]));
}

/** The next file that is written of it counts as newer than the one of that version. */
export async function outdateRecord(catalog: Catalog, { kind, id, version }: RecordMark): Promise<void> {
  await catalog
    .insertInto('records')
    .values({ kind, id, version: version + 1, written: version })
    .onConflict((conflict) =>
      conflict.columns(['kind', 'id']).doUpdateSet({ version: version + 1, written: version }),
    )
    .execute();
}
