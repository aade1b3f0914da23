/**
 * Schedules, and what became of each time at which one was due. That a run is to be and up to when all is decided are written
 * in one transaction, and that it is done in the one that makes its image: so each due time is saved for once.
 */
import type { Insertable, Selectable, Updateable } from 'kysely';
import { isDuplicate, type Catalog, type CatalogDatabase } from './database.ts';
import type { ScheduleRunTable, ScheduleTable } from './schema.ts';

export type ScheduleRecord = Selectable<ScheduleTable>;
export type RunRecord = Selectable<ScheduleRunTable>;

/** Whom a run is of. */
export interface RunKey {
  readonly guest: string;
  readonly schedule: string;
  /** ISO */
  readonly dueAt: string;
}

/** Of each schedule; also how far a clock that was set back is seen through. */
const KEPT_RUNS = 500;

/** In the order of their names. @param guests UUIDs; none: of all guests */
export async function listSchedules(catalog: Catalog, guests?: readonly string[]): Promise<ScheduleRecord[]> {
  let query = catalog.selectFrom('schedules').selectAll();
  if (guests !== undefined) query = query.where('guest', 'in', guests);
  return query.orderBy('guest').orderBy('name').execute();
}

export async function findSchedule(
  catalog: Catalog,
  guest: string,
  name: string,
): Promise<ScheduleRecord | undefined> {
  return catalog
    .selectFrom('schedules')
    .selectAll()
    .where('guest', '=', guest)
    .where('name', '=', name)
    .executeTakeFirst();
}

export async function insertSchedule(catalog: Catalog, schedule: Insertable<ScheduleTable>): Promise<void> {
  await catalog.insertInto('schedules').values(schedule).execute();
}

export async function updateSchedule(
  catalog: Catalog,
  { guest, name }: Pick<ScheduleRecord, 'guest' | 'name'>,
  values: Updateable<ScheduleTable>,
): Promise<void> {
  await catalog
    .updateTable('schedules')
    .set(values)
    .where('guest', '=', guest)
    .where('name', '=', name)
    .execute();
}

/** With its runs; its images stay. */
export async function deleteSchedule(catalog: Catalog, guest: string, name: string): Promise<void> {
  await catalog.deleteFrom('schedules').where('guest', '=', guest).where('name', '=', name).execute();
}

/**
 * Decides a due time, once and for all.
 * @returns false when it was decided before, as the clock had been set back since, or when the schedule was paused or removed meanwhile
 */
export async function decideRun(
  catalog: CatalogDatabase,
  key: RunKey,
  run: Pick<RunRecord, 'state' | 'endedAt' | 'message'>,
): Promise<boolean> {
  const { guest, schedule, dueAt } = key;
  const isNew = await catalog.transaction().execute(async (transaction) => {
    const { numUpdatedRows } = await transaction
      .updateTable('schedules')
      .set({ decidedUntil: dueAt })
      .where('guest', '=', guest)
      .where('name', '=', schedule)
      .where('paused', '=', 0)
      .executeTakeFirstOrThrow();
    return numUpdatedRows > 0n && (await insertRun(transaction, key, run));
  });
  if (isNew) await trimRuns(catalog, key);
  return isNew;
}

async function insertRun(
  catalog: Catalog,
  key: RunKey,
  run: Pick<RunRecord, 'state' | 'endedAt' | 'message'>,
): Promise<boolean> {
  try {
    const values = { ...key, ...run, attempts: 0, image: null, operation: null };
    await catalog.insertInto('scheduleRuns').values(values).execute();
    return true;
  } catch (error) {
    if (isDuplicate(error)) return false;
    throw error;
  }
}

async function trimRuns(catalog: Catalog, { guest, schedule }: RunKey): Promise<void> {
  const kept = catalog
    .selectFrom('scheduleRuns')
    .select('id')
    .where('guest', '=', guest)
    .where('schedule', '=', schedule)
    .orderBy('id', 'desc')
    .limit(KEPT_RUNS);
  await catalog
    .deleteFrom('scheduleRuns')
    .where('guest', '=', guest)
    .where('schedule', '=', schedule)
    .where('state', '!=', 'waiting')
    .where('id', 'not in', kept)
    .execute();
}

/** Says what became of a run: part of the commit of its save, or when nothing comes of it. Once it is said it stays so. */
export async function settleRun(
  catalog: Catalog,
  { guest, schedule, dueAt }: RunKey,
  values: Pick<Updateable<ScheduleRunTable>, 'state' | 'image' | 'message'>,
): Promise<void> {
  await catalog
    .updateTable('scheduleRuns')
    .set({ ...values, endedAt: new Date().toISOString() })
    .where('guest', '=', guest)
    .where('schedule', '=', schedule)
    .where('dueAt', '=', dueAt)
    .where('state', '=', 'waiting')
    .execute();
}

/** While it is waited for. */
export async function updateRun(
  catalog: Catalog,
  { guest, schedule, dueAt }: RunKey,
  values: Pick<Updateable<ScheduleRunTable>, 'attempts' | 'operation'>,
): Promise<void> {
  await catalog
    .updateTable('scheduleRuns')
    .set(values)
    .where('guest', '=', guest)
    .where('schedule', '=', schedule)
    .where('dueAt', '=', dueAt)
    .execute();
}

/** Decided and not settled, in the order in which they were due. */
export async function waitingRuns(catalog: Catalog): Promise<RunRecord[]> {
  return catalog
    .selectFrom('scheduleRuns')
    .selectAll()
    .where('state', '=', 'waiting')
    .orderBy('dueAt')
    .orderBy('id')
    .execute();
}

/** The newest run of each schedule of given guests. */
export async function lastRuns(catalog: Catalog, guests: readonly string[]): Promise<RunRecord[]> {
  const newest = catalog
    .selectFrom('scheduleRuns')
    .select((select) => select.fn.max('id').as('id'))
    .where('guest', 'in', guests)
    .groupBy(['guest', 'schedule']);
  return catalog.selectFrom('scheduleRuns').selectAll().where('id', 'in', newest).execute();
}
