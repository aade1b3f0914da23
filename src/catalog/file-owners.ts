/** Whose the files of users were before they were given to QEMU: written down before, and forgotten when they are given back. */
import type { Selectable } from 'kysely';
import type { Catalog } from './database.ts';
import type { FileOwnerTable } from './schema.ts';

export type FileOwner = Selectable<FileOwnerTable>;

export async function findOwner(catalog: Catalog, path: string): Promise<FileOwner | undefined> {
  return catalog.selectFrom('fileOwners').selectAll().where('path', '=', path).executeTakeFirst();
}

export async function listOwners(catalog: Catalog): Promise<FileOwner[]> {
  return catalog.selectFrom('fileOwners').selectAll().execute();
}

/** The first that is told is the one that counts. */
export async function rememberOwner(catalog: Catalog, owner: FileOwner): Promise<void> {
  await catalog
    .insertInto('fileOwners')
    .values(owner)
    .onConflict((conflict) => conflict.column('path').doNothing())
    .execute();
}

export async function forgetOwner(catalog: Catalog, path: string): Promise<void> {
  await catalog.deleteFrom('fileOwners').where('path', '=', path).execute();
}
