/** How fast the guests were saved, all at once, before: what the next time is planned by. */
import type { Selectable } from 'kysely';
import type { Catalog } from './database.ts';
import type { SaveRunTable } from './schema.ts';

export type SaveRun = Omit<Selectable<SaveRunTable>, 'id'>;

const KEPT_RUNS = 20;

export async function insertSaveRun(catalog: Catalog, run: SaveRun): Promise<void> {
  await catalog.insertInto('saveRuns').values(run).execute();
  await catalog
    .deleteFrom('saveRuns')
    .where('id', 'not in', (select) =>
      select.selectFrom('saveRuns').select('id').orderBy('id', 'desc').limit(KEPT_RUNS),
    )
    .execute();
}

/** Newest first. */
export async function saveRuns(catalog: Catalog): Promise<SaveRun[]> {
  return catalog.selectFrom('saveRuns').selectAll().orderBy('id', 'desc').execute();
}
