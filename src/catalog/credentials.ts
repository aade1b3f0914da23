/** Credentials for access from other machines: tokens, kept as hashes, and certificates, kept as fingerprints. */
import type { Selectable } from 'kysely';
import { StasisError } from '../errors.ts';
import { isDuplicate, type Catalog } from './database.ts';
import type { CredentialTable } from './schema.ts';

export type CredentialRecord = Selectable<CredentialTable>;

/** The name of one that is no longer good may be used again. @throws StasisError `credential-exists` */
export async function insertCredential(
  catalog: Catalog,
  credential: Omit<CredentialRecord, 'lastUsedAt' | 'revokedAt'>,
): Promise<void> {
  await catalog
    .deleteFrom('credentials')
    .where('name', '=', credential.name)
    .where((where) =>
      where.or([where('revokedAt', 'is not', null), where('expiresAt', '<=', credential.createdAt)]),
    )
    .execute();
  try {
    await catalog
      .insertInto('credentials')
      .values({ ...credential, lastUsedAt: null, revokedAt: null })
      .execute();
  } catch (error) {
    if (!isDuplicate(error)) throw error;
    throw new StasisError(
      'credential-exists',
      `there is a credential ${credential.name} already: choose another name, or revoke that one`,
      { cause: error },
    );
  }
}

/** In order of their names; revoked ones stay listed until their name is used again. */
export async function listCredentials(catalog: Catalog): Promise<CredentialRecord[]> {
  return catalog.selectFrom('credentials').selectAll().orderBy('name').execute();
}

/** One that is neither revoked nor expired. */
export async function findValidCredential(
  catalog: Catalog,
  by: { readonly id: string } | { readonly fingerprint: string },
  now: Date,
): Promise<CredentialRecord | undefined> {
  const query = catalog
    .selectFrom('credentials')
    .selectAll()
    .where('revokedAt', 'is', null)
    .where('expiresAt', '>', now.toISOString());
  return 'id' in by
    ? query.where('kind', '=', 'token').where('id', '=', by.id).executeTakeFirst()
    : query.where('kind', '=', 'certificate').where('secretHash', '=', by.fingerprint).executeTakeFirst();
}

/** Remembers that it was used, a minute being exact enough. */
export async function touchCredential(
  catalog: Catalog,
  { id, lastUsedAt }: CredentialRecord,
  now: Date,
): Promise<void> {
  if (lastUsedAt !== null && now.getTime() - Date.parse(lastUsedAt) < TOUCH_MS) return;
  await catalog
    .updateTable('credentials')
    .set({ lastUsedAt: now.toISOString() })
    .where('id', '=', id)
    .execute();
}

const TOUCH_MS = 60_000;

/** @returns its id. @throws StasisError `credential-not-found` when there is none of that name that is still good */
export async function revokeCredential(catalog: Catalog, name: string, now: Date): Promise<string> {
  const revoked = await catalog
    .updateTable('credentials')
    .set({ revokedAt: now.toISOString() })
    .where('name', '=', name)
    .where('revokedAt', 'is', null)
    .returning('id')
    .executeTakeFirst();
  if (revoked === undefined)
    throw new StasisError(
      'credential-not-found',
      `there is no credential ${name} to revoke; \`stasis remote credentials\` lists them`,
    );
  return revoked.id;
}
