/** Operations as records: the journal that recovery reads. */
import { sql, type Selectable } from 'kysely';
import { StasisError } from '../errors.ts';
import type { Catalog } from './database.ts';
import type { OperationTable } from './schema.ts';

export type OperationRecord = Selectable<OperationTable>;

const KEPT_OPERATIONS = 1000;
/** For so long a request that is sent again is known. */
const REQUESTS_KNOWN_MS = 24 * 3600 * 1000;

export async function insertOperation(catalog: Catalog, operation: OperationRecord): Promise<void> {
  await catalog
    .insertInto('operations')
    .values({ ...operation, committed: 0, settled: 0 })
    .execute();
}

export async function updateOperation(
  catalog: Catalog,
  id: string,
  values: Partial<
    Pick<
      OperationRecord,
      'state' | 'plan' | 'steps' | 'warnings' | 'outcomes' | 'error' | 'finishedAt' | 'image' | 'guest'
    >
  >,
): Promise<void> {
  await catalog.updateTable('operations').set(values).where('id', '=', id).execute();
}

export async function markCommitted(catalog: Catalog, id: string): Promise<void> {
  await catalog.updateTable('operations').set({ committed: 1 }).where('id', '=', id).execute();
}

export async function findOperation(catalog: Catalog, id: string): Promise<OperationRecord | undefined> {
  return catalog.selectFrom('operations').selectAll().where('id', '=', id).executeTakeFirst();
}

/** What a request with this key began within the last 24 hours. */
export async function findRequested(
  catalog: Catalog,
  requestKey: string,
): Promise<OperationRecord | undefined> {
  return catalog
    .selectFrom('operations')
    .selectAll()
    .where('requestKey', '=', requestKey)
    .where('createdAt', '>', dayBefore(new Date()))
    .orderBy('createdAt', 'desc')
    .executeTakeFirst();
}

function dayBefore(now: Date): string {
  return new Date(now.getTime() - REQUESTS_KNOWN_MS).toISOString();
}

export function operationNotFound(id: string): StasisError {
  return new StasisError('operation-not-found', `there is no operation ${id}; \`stasis ops\` lists them`);
}

/** Newest first. */
export async function listOperations(
  catalog: Catalog,
  limit: number,
  guest?: string,
): Promise<OperationRecord[]> {
  let query = catalog.selectFrom('operations').selectAll();
  if (guest !== undefined) query = query.where('guest', '=', guest);
  return query.orderBy('createdAt', 'desc').orderBy('id', 'desc').limit(limit).execute();
}

export async function markSettled(catalog: Catalog, id: string): Promise<void> {
  await catalog.updateTable('operations').set({ settled: 1 }).where('id', '=', id).execute();
}

/**
 * What was under way when the last daemon ended, and what could be neither finished nor undone since: newest first,
 * so that a child comes before its parent. By the order in which they were recorded, since clocks jump.
 * @param about of this guest alone, also what made it, which knows only its name
 */
export async function unsettledOperations(
  catalog: Catalog,
  about?: { readonly guest: string; readonly guestName: string },
): Promise<OperationRecord[]> {
  let query = catalog.selectFrom('operations').selectAll().where('settled', '=', 0);
  if (about !== undefined) {
    const { guest, guestName } = about;
    query = query.where((where) =>
      where.or([where('guest', '=', guest), where.and({ guestName }).and('guest', 'is', null)]),
    );
  }
  return query.orderBy(sql`rowid`, 'desc').execute();
}

/** Finished operations are history, and history has a limit, which is not below what requests are known by. */
export async function trimOperations(catalog: Catalog): Promise<void> {
  await catalog
    .deleteFrom('operations')
    .where('settled', '=', 1)
    .where('createdAt', '<', dayBefore(new Date()))
    .where('id', 'not in', (select) =>
      select.selectFrom('operations').select('id').orderBy('createdAt', 'desc').limit(KEPT_OPERATIONS),
    )
    .execute();
}
