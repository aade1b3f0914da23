/**
 * The audit trail as records: append-only, each with the hash of the one before it, so that one that was changed, taken out
 * or put between is seen. Whoever can write the catalog can write the whole trail anew, but not so that it has a hash in it
 * that somebody wrote down elsewhere.
 */
import { hash } from 'node:crypto';
import type { Selectable } from 'kysely';
import { fromStored } from '../stored.ts';
import type { Catalog } from './database.ts';
import type { AuditTable } from './schema.ts';

export type AuditRecord = Selectable<AuditTable>;
export type AuditInput = Omit<AuditRecord, 'id' | 'previous' | 'hash'>;

/** So many entries are kept; older ones go, which is an entry itself. With 300 bytes each, usually, that is 6 MB. */
const KEPT_ENTRIES = 20_000;
/** What the first entry ever has in place of a hash. */
const NO_HASH = '0'.repeat(64);
const PAGE = 1000;

/** Call it in a transaction: the entry follows the last one. */
export async function appendAudit(transaction: Catalog, input: AuditInput): Promise<AuditRecord> {
  const last = await lastEntry(transaction);
  const unhashed = { ...input, id: (last?.id ?? 0) + 1, previous: last?.hash ?? NO_HASH };
  const entry = { ...unhashed, hash: hashOf(unhashed) };
  await transaction.insertInto('audit').values(entry).execute();
  return entry;
}

/** Forgets the oldest entries when there are too many. Call it in a transaction. */
export async function trimAudit(transaction: Catalog, at: string, kept = KEPT_ENTRIES): Promise<void> {
  const upTo = ((await lastEntry(transaction))?.id ?? 0) + 1 - kept;
  const last = await transaction.selectFrom('audit').select('hash').where('id', '=', upTo).executeTakeFirst();
  if (last === undefined) return;
  await appendAudit(transaction, {
    ...{ at, kind: 'trim', caller: null, action: 'trim', guest: null, image: null, operation: null },
    parameters: JSON.stringify({ upTo, hash: last.hash } satisfies Trim),
    ...{ outcome: 'done', request: null, message: `entries up to ${upTo} were forgotten` },
  });
  await transaction.deleteFrom('audit').where('id', '<=', upTo).execute();
}

/** What a trim vouches for: where the trail begins now. */
interface Trim {
  readonly upTo: number;
  readonly hash: string;
}

export interface AuditFilter {
  readonly guest?: string | undefined;
  /** entries with a greater id */
  readonly after?: number | undefined;
  /** ISO 8601, UTC */
  readonly since?: string | undefined;
}

/** The first entries after the given point, in order. */
export async function auditAfter(
  catalog: Catalog,
  filter: AuditFilter,
  limit: number,
): Promise<AuditRecord[]> {
  return filtered(catalog, filter).orderBy('id').limit(limit).execute();
}

/** The newest entries, oldest of them first. */
export async function lastAudit(
  catalog: Catalog,
  filter: AuditFilter,
  limit: number,
): Promise<AuditRecord[]> {
  return (await filtered(catalog, filter).orderBy('id', 'desc').limit(limit).execute()).toReversed();
}

function filtered(catalog: Catalog, { guest, after, since }: AuditFilter) {
  let query = catalog.selectFrom('audit').selectAll();
  if (guest !== undefined) query = query.where('guest', '=', guest);
  if (after !== undefined) query = query.where('id', '>', after);
  if (since !== undefined) query = query.where('at', '>=', since);
  return query;
}

export interface AuditVerdict {
  /** what is wrong, and where; null: nothing was changed since it was written */
  readonly problem: string | null;
  readonly entries: number;
  /** the newest entry: its hash stands for the whole trail up to it */
  readonly last: { readonly id: number; readonly hash: string } | null;
}

/** Goes through the whole trail. @param expected a hash that was the newest once: it must be there */
export async function verifyAudit(catalog: Catalog, expected?: string): Promise<AuditVerdict> {
  const trim = await lastTrim(catalog);
  let last = { id: trim?.upTo ?? 0, hash: trim?.hash ?? NO_HASH };
  let entries = 0;
  let found = expected === undefined || expected === trim?.hash;
  for (;;) {
    const page = await auditAfter(catalog, { after: entries === 0 ? undefined : last.id }, PAGE);
    for (const entry of page) {
      const problem = problemOf(entry, last);
      if (problem !== undefined) return { problem, entries, last };
      last = { id: entry.id, hash: entry.hash };
      found ||= entry.hash === expected;
      entries += 1;
    }
    if (page.length < PAGE) break;
  }
  const problem = found
    ? null
    : `no entry has the hash ${expected}: the trail was written anew, or forgot it`;
  return { problem, entries, last: entries === 0 ? null : last };
}

function problemOf(entry: AuditRecord, before: { id: number; hash: string }): string | undefined {
  const { id, previous } = entry;
  if (id !== before.id + 1) return `entry ${id} follows entry ${before.id}: entries between are missing`;
  if (previous !== before.hash)
    return `entry ${id} does not follow the entry before it: that one was replaced`;
  if (entry.hash !== hashOf(entry)) return `entry ${id} was changed after it was written`;
  return undefined;
}

function hashOf(entry: Omit<AuditRecord, 'hash'>): string {
  const { id, at, kind, caller, action, guest, image, parameters } = entry;
  const { outcome, operation, request, message, previous } = entry;
  const told = [previous, id, at, kind, caller, action, guest, image, parameters];
  return hash('sha256', JSON.stringify([...told, outcome, operation, request, message]), 'hex');
}

async function lastEntry(catalog: Catalog): Promise<{ id: number; hash: string } | undefined> {
  return catalog.selectFrom('audit').select(['id', 'hash']).orderBy('id', 'desc').limit(1).executeTakeFirst();
}

async function lastTrim(catalog: Catalog): Promise<Trim | undefined> {
  const entry = await catalog
    .selectFrom('audit')
    .select('parameters')
    .where('kind', '=', 'trim')
    .orderBy('id', 'desc')
    .limit(1)
    .executeTakeFirst();
  return typeof entry?.parameters === 'string' ? fromStored<Trim>(entry.parameters) : undefined;
}
