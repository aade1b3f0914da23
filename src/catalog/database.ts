/**
 * The embedded database behind the catalog: node:sqlite under Kysely. Write-ahead log, every commit on disk before
 * it is acknowledged, foreign keys on. The connection takes the file's lock and keeps it, which is also how one
 * home has one daemon: the lock ends with the process, however that ends.
 */
import { EventEmitter } from 'node:events';
import { readFileSync } from 'node:fs';
import { backup, DatabaseSync, type SQLInputValue } from 'node:sqlite';
import {
  Kysely,
  sql,
  SqliteAdapter,
  SqliteDialect,
  type DialectAdapter,
  type SqliteDatabase,
  type SqliteStatement,
  type Transaction,
} from 'kysely';
import { Migrator } from 'kysely/migration';
import { StasisError, catalogDamaged, messageOf } from '../errors.ts';
import { watchChanges, type Changes } from './changes.ts';
import { MIGRATIONS, type Tables } from './schema.ts';

/** What the catalog's functions run on: the database or a transaction in it. */
export type Catalog = Kysely<Tables> | Transaction<Tables>;
export type CatalogDatabase = Kysely<Tables>;

/** What is done to a catalog beside statements. */
const connections = new WeakMap<
  CatalogDatabase,
  { connection: DatabaseSync; marked: EventEmitter; changes: Changes }
>();

/** So many statements are kept compiled: more than the program has, but lists of ids of each length are statements of their own. */
const KEPT_STATEMENTS = 256;

/** node:sqlite in the shape Kysely's dialect expects. To compile a statement takes SQLite longer than to find a row by it. */
function kyselyDatabase(database: DatabaseSync): SqliteDatabase {
  const kept = new Map<string, SqliteStatement>();
  return {
    close: () => database.close(),
    prepare: (text) => {
      const statement = kept.get(text) ?? prepare(database, text);
      // The longest unused is the first one.
      kept.delete(text);
      kept.set(text, statement);
      const [oldest] = kept.size > KEPT_STATEMENTS ? kept.keys() : [];
      if (oldest !== undefined) kept.delete(oldest);
      return statement;
    },
  };
}

function prepare(database: DatabaseSync, text: string): SqliteStatement {
  const statement = told(database, () => database.prepare(text));
  // Kysely passes on what our typed tables allow: text, numbers and null.
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion
  const values = (parameters: readonly unknown[]) => parameters as SQLInputValue[];
  return {
    reader: statement.columns().length > 0,
    all: (parameters) => told(database, () => statement.all(...values(parameters))),
    run: (parameters) => {
      // When its disk fails SQLite rolls back by itself: nothing is left to do, and the error that counts is told already.
      if (text === 'rollback' && !database.isTransaction) return { changes: 0, lastInsertRowid: 0 };
      return told(database, () => statement.run(...values(parameters)));
    },
    iterate: (parameters) => statement.iterate(...values(parameters)),
  };
}

/**
 * A read that its disk fails (EIO) SQLite tells as damage of its file: it takes the file system for corrupt. Only when it looks at
 * the whole file it says which page it could not get, and why: who can't read a catalog must not be told to make it again.
 */
function told<T>(database: DatabaseSync, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (StasisError.from(error).code !== 'catalog-damaged') throw error;
    const finding = firstFinding(database);
    throw finding !== undefined && isFailedRead(finding) ? unreadable(finding, error) : error;
  }
}

function firstFinding(database: DatabaseSync): string | undefined {
  try {
    const [row] = database.prepare('pragma quick_check(1)').all();
    return String(row?.['quick_check']);
  } catch {
    return undefined; // it is so bad that nothing more is to be learned: the first error counts
  }
}

/** Codes of SQLite's whose lowest byte is that of SQLITE_IOERR, 8458 (SQLITE_IOERR_CORRUPTFS) above all. */
function isFailedRead(finding: string): boolean {
  const [, code] = /unable to get the page\. error code=(\d+)/.exec(finding) ?? [];
  return code !== undefined && (Number(code) & 0xff) === SQLITE_IOERR;
}

const SQLITE_IOERR = 10;

function unreadable(finding: string, cause?: unknown): StasisError {
  return new StasisError('storage-failed', `the catalog can't be read, its disk fails: ${finding}`, {
    cause,
  });
}

/** SQLite takes back changes of tables too, so all that is missing of them is made at once, or nothing. */
class Dialect extends SqliteDialect {
  override createAdapter(): DialectAdapter {
    return new TransactionalTables();
  }
}

class TransactionalTables extends SqliteAdapter {
  override get supportsTransactionalDdl(): boolean {
    return true;
  }
}

/**
 * Opens (and migrates) the catalog, and owns it until it is closed.
 * @param until the last migration to be made; without it all of them
 * @throws StasisError `busy` when another process owns it; `catalog-damaged`
 */
export async function openCatalog(path: string, until?: string): Promise<CatalogDatabase> {
  const connection = openConnection(path);
  const database = new Kysely<Tables>({
    dialect: new Dialect({ database: kyselyDatabase(connection) }),
  });
  const migrator = new Migrator({
    db: database,
    provider: { getMigrations: () => Promise.resolve(MIGRATIONS) },
    // Numbers are handed out when work begins: one that was done later may be lower. None relies on one that isn't older.
    allowUnorderedMigrations: true,
  });
  const { error } = await (until === undefined ? migrator.migrateToLatest() : migrator.migrateTo(until));
  if (error !== undefined) {
    await database.destroy();
    if (StasisError.from(error).code === 'catalog-damaged') throw StasisError.from(error);
    throw new StasisError('storage-failed', `the catalog ${path} can't be migrated: ${messageOf(error)}`, {
      cause: error,
    });
  }
  // One that is not yet of today has no records.
  if (until === undefined)
    connections.set(database, {
      connection,
      marked: announceMarks(connection),
      changes: watchChanges(connection),
    });
  return database;
}

function openConnection(path: string): DatabaseSync {
  const connection = new DatabaseSync(path, { enableForeignKeyConstraints: true, timeout: 0 });
  try {
    connection.exec('pragma locking_mode = exclusive; pragma journal_mode = wal; pragma synchronous = full');
    connection.exec('begin immediate; commit');
    return connection;
  } catch (error) {
    connection.close();
    if (/locked/.test(messageOf(error))) {
      throw new StasisError('busy', `another Stasis daemon already runs on ${path}`, { cause: error });
    }
    refuseUnreadable(path);
    throw StasisError.from(error);
  }
}

/** Only of a catalog that this process has not open: to close a file lets go of the process's locks on it. */
function refuseUnreadable(path: string): void {
  try {
    readFileSync(path);
  } catch (error) {
    throw unreadable(messageOf(error), error);
  }
}

/** Triggers of this connection alone tell that a record was marked: before the commit, so who is told looks after it. */
function announceMarks(connection: DatabaseSync): EventEmitter {
  const marked = new EventEmitter();
  connection.function('recordMarked', () => {
    marked.emit('marked');
    return null;
  });
  for (const change of ['insert', 'update'])
    connection.exec(
      `create temp trigger recordsMarked_${change} after ${change} on main.records
       when new.version <> new.written begin select recordMarked(); end`,
    );
  return marked;
}

function connectionOf(catalog: CatalogDatabase) {
  const found = connections.get(catalog);
  if (found === undefined) throw new StasisError('internal', 'this catalog was not opened by openCatalog');
  return found;
}

/**
 * Calls back whenever a record file no longer says what the catalog is about to say. A transaction that is under way need
 * not be committed yet: what is read of the catalog after that waits for it.
 * @returns how to stop
 */
export function onRecordMarked(catalog: CatalogDatabase, listener: () => void): () => void {
  const { marked } = connectionOf(catalog);
  marked.on('marked', listener);
  return () => marked.off('marked', listener);
}

/** What has changed since the catalog was opened. */
export function changesOf(catalog: CatalogDatabase): Changes {
  return connectionOf(catalog).changes;
}

/**
 * Copies the catalog into a new file as it is at one instant, durable when this returns. Everything else waits meanwhile: the
 * copy would otherwise hold what a transaction that is under way may yet take back.
 */
export async function copyCatalog(catalog: CatalogDatabase, path: string): Promise<void> {
  const { connection } = connectionOf(catalog);
  await catalog.connection().execute(() => backup(connection, path, { rate: ALL_PAGES }));
}

/** In one go. */
const ALL_PAGES = 2 ** 31 - 1;

/** @throws StasisError `catalog-damaged` naming the first thing that SQLite finds wrong with the whole file; `storage-failed` */
export async function checkCatalog(catalog: CatalogDatabase): Promise<void> {
  const { rows } = await sql<{ quick_check: string }>`pragma quick_check(1)`.execute(catalog);
  const [finding] = rows.map((row) => row.quick_check);
  if (finding !== undefined && isFailedRead(finding)) throw unreadable(finding);
  if (finding !== 'ok') throw catalogDamaged(finding ?? 'SQLite finds nothing in it');
}

/** True when a write failed because a row with that key is already there. */
export function isDuplicate(error: unknown): boolean {
  return /UNIQUE constraint failed/.test(messageOf(error));
}
