/** What happened, in order, kept so that a client that was away can catch up. */
import type { Insertable, Selectable } from 'kysely';
import type { Catalog } from './database.ts';
import type { EventTable } from './schema.ts';

export type EventRecord = Selectable<EventTable>;

const KEPT_EVENTS = 10_000;

export async function insertEvent(
  catalog: Catalog,
  event: Omit<Insertable<EventTable>, 'id'>,
): Promise<EventRecord> {
  return catalog.insertInto('events').values(event).returningAll().executeTakeFirstOrThrow();
}

export async function eventsAfter(catalog: Catalog, id: number, limit: number): Promise<EventRecord[]> {
  return catalog.selectFrom('events').selectAll().where('id', '>', id).orderBy('id').limit(limit).execute();
}

/** The newest events, oldest of them first. */
export async function lastEvents(catalog: Catalog, limit: number, guest?: string): Promise<EventRecord[]> {
  let query = catalog.selectFrom('events').selectAll().orderBy('id', 'desc').limit(limit);
  if (guest !== undefined) query = query.where('guest', '=', guest);
  return (await query.execute()).toReversed();
}

/** 0 before the first. */
export async function lastEventId(catalog: Catalog): Promise<number> {
  const newest = await catalog
    .selectFrom('events')
    .select('id')
    .orderBy('id', 'desc')
    .limit(1)
    .executeTakeFirst();
  return newest?.id ?? 0;
}

export async function trimEvents(catalog: Catalog): Promise<void> {
  const newest = await lastEventId(catalog);
  await catalog
    .deleteFrom('events')
    .where('id', '<=', newest - KEPT_EVENTS)
    .execute();
}
