/** How earlier live captures went: what the next one's prediction rests on. They outlive their images. */
import type { Selectable } from 'kysely';
import type { Catalog } from './database.ts';
import type { CaptureTable } from './schema.ts';

export type CaptureRecord = Omit<Selectable<CaptureTable>, 'id'>;

/** Older ones say nothing of how it is now. */
const KEPT_PER_GUEST = 100;

export async function insertCapture(catalog: Catalog, capture: CaptureRecord): Promise<void> {
  await catalog.insertInto('captures').values(capture).execute();
  await catalog
    .deleteFrom('captures')
    .where('guest', '=', capture.guest)
    .where('id', 'not in', (select) =>
      select
        .selectFrom('captures')
        .select('id')
        .where('guest', '=', capture.guest)
        .orderBy('id', 'desc')
        .limit(KEPT_PER_GUEST),
    )
    .execute();
}

/** The latest captures by one method, newest first: of one guest, or of all. */
export async function recentCaptures(
  catalog: Catalog,
  method: CaptureRecord['method'],
  limit: number,
  guest?: string,
): Promise<CaptureRecord[]> {
  let query = catalog.selectFrom('captures').selectAll().where('method', '=', method);
  if (guest !== undefined) query = query.where('guest', '=', guest);
  return query.orderBy('id', 'desc').limit(limit).execute();
}
