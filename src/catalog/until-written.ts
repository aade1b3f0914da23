/**
 * What is summed over all images and layers stays true until something is written, and the daemon is the only one who writes: who
 * asks in between gets the same sum. Not to be used within a transaction, which may yet be rolled back.
 */
import { sql } from 'kysely';
import type { Catalog } from './database.ts';

/** @returns the same reader, that reads only once between two changes of the catalog */
export function untilWritten<T>(read: (catalog: Catalog) => Promise<T>): (catalog: Catalog) => Promise<T> {
  const known = new WeakMap<Catalog, { readonly changes: number; readonly value: T }>();
  return async (catalog) => {
    // Before it is read: what is written meanwhile makes it be read again.
    const changes = await changesOf(catalog);
    const last = known.get(catalog);
    if (last?.changes === changes) return last.value;
    const value = await read(catalog);
    known.set(catalog, { changes, value });
    return value;
  };
}

/** Rows that this connection, the only one, has changed since it was opened. */
async function changesOf(catalog: Catalog): Promise<number> {
  const { rows } = await sql<{ changes: number }>`select total_changes() as changes`.execute(catalog);
  return rows[0]?.changes ?? 0;
}
