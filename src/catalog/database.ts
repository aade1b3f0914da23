/**
 * The embedded database behind the catalog: node:sqlite under Kysely. Write-ahead log, every commit on disk before
 * it is acknowledged, foreign keys on. The connection takes the file's lock and keeps it, which is also how one
 * home has one daemon: the lock ends with the process, however that ends.
 */
import { DatabaseSync, type SQLInputValue } from 'node:sqlite';
import { Kysely, SqliteDialect, type SqliteDatabase, type Transaction } from 'kysely';
import { Migrator } from 'kysely/migration';
import { StasisError, messageOf } from '../errors.ts';
import { MIGRATIONS, type Tables } from './schema.ts';

/** What the catalog's functions run on: the database or a transaction in it. */
export type Catalog = Kysely<Tables> | Transaction<Tables>;
export type CatalogDatabase = Kysely<Tables>;

/** node:sqlite in the shape Kysely's dialect expects. */
function kyselyDatabase(database: DatabaseSync): SqliteDatabase {
  return {
    close: () => database.close(),
    prepare: (text) => {
      const statement = database.prepare(text);
      // Kysely passes on what our typed tables allow: text, numbers and null.
      // oxlint-disable-next-line typescript/no-unsafe-type-assertion
      const values = (parameters: readonly unknown[]) => parameters as SQLInputValue[];
      return {
        reader: statement.columns().length > 0,
        all: (parameters) => statement.all(...values(parameters)),
        run: (parameters) => {
          // When its disk fails SQLite rolls back by itself: nothing is left to do, and the error that counts is told already.
          if (text === 'rollback' && !database.isTransaction) return { changes: 0, lastInsertRowid: 0 };
          return statement.run(...values(parameters));
        },
        iterate: (parameters) => statement.iterate(...values(parameters)),
      };
    },
  };
}

/**
 * Opens (and migrates) the catalog, and owns it until it is closed.
 * @param until the last migration to be made; without it all of them
 * @throws StasisError `busy` when another process owns it
 */
export async function openCatalog(path: string, until?: string): Promise<CatalogDatabase> {
  let connection: DatabaseSync;
  try {
    connection = new DatabaseSync(path, { enableForeignKeyConstraints: true, timeout: 0 });
    connection.exec('pragma locking_mode = exclusive; pragma journal_mode = wal; pragma synchronous = full');
    connection.exec('begin immediate; commit');
  } catch (error) {
    if (/locked/.test(messageOf(error))) {
      throw new StasisError('busy', `another Stasis daemon already runs on ${path}`, { cause: error });
    }
    throw error;
  }
  const database = new Kysely<Tables>({
    dialect: new SqliteDialect({ database: kyselyDatabase(connection) }),
  });
  const migrator = new Migrator({
    db: database,
    provider: { getMigrations: () => Promise.resolve(MIGRATIONS) },
  });
  const { error } = await (until === undefined ? migrator.migrateToLatest() : migrator.migrateTo(until));
  if (error !== undefined) {
    await database.destroy();
    throw new StasisError('storage-failed', `the catalog ${path} can't be migrated: ${messageOf(error)}`, {
      cause: error,
    });
  }
  return database;
}

/** True when a write failed because a row with that key is already there. */
export function isDuplicate(error: unknown): boolean {
  return /UNIQUE constraint failed/.test(messageOf(error));
}
