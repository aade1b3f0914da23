/** Guests as records: who they are, which process they are, what their present derives from. */
import type { Selectable } from 'kysely';
import { StasisError } from '../errors.ts';
import type { Catalog } from './database.ts';
import type { GuestTable } from './schema.ts';

export type GuestRecord = Selectable<GuestTable>;

export async function listGuests(catalog: Catalog): Promise<GuestRecord[]> {
  return catalog.selectFrom('guests').selectAll().orderBy('name').execute();
}

export async function guestsByUuid(catalog: Catalog, uuids: readonly string[]): Promise<GuestRecord[]> {
  return catalog.selectFrom('guests').selectAll().where('uuid', 'in', uuids).execute();
}

export async function countGuests(catalog: Catalog): Promise<number> {
  const { count } = await catalog
    .selectFrom('guests')
    .select((select) => select.fn.countAll<number>().as('count'))
    .executeTakeFirstOrThrow();
  return count;
}

/** By name or UUID. */
export async function findGuest(catalog: Catalog, name: string): Promise<GuestRecord | undefined> {
  return catalog
    .selectFrom('guests')
    .selectAll()
    .where((where) => where.or([where('name', '=', name), where('uuid', '=', name)]))
    .executeTakeFirst();
}

/** @throws StasisError `guest-not-found` */
export async function getGuest(catalog: Catalog, name: string): Promise<GuestRecord> {
  const guest = await findGuest(catalog, name);
  if (guest === undefined) throw guestNotFound(name);
  return guest;
}

export function guestNotFound(name: string): StasisError {
  return new StasisError('guest-not-found', `there is no guest "${name}"; \`stasis guests\` lists them`, {
    guest: name,
  });
}

export async function getGuestByUuid(catalog: Catalog, uuid: string): Promise<GuestRecord> {
  return getGuest(catalog, uuid);
}

export async function hasGuest(catalog: Catalog, uuid: string): Promise<boolean> {
  return (
    (await catalog.selectFrom('guests').select('uuid').where('uuid', '=', uuid).executeTakeFirst()) !==
    undefined
  );
}

export async function insertGuest(
  catalog: Catalog,
  guest: Omit<GuestRecord, 'frozen' | 'tpm'>,
): Promise<void> {
  await catalog
    .insertInto('guests')
    .values({ ...guest, crashed: guest.crashed === 1 ? 1 : 0 })
    .execute();
}

export async function deleteGuest(catalog: Catalog, uuid: string): Promise<void> {
  await catalog.deleteFrom('guests').where('uuid', '=', uuid).execute();
}

/** The process that is this guest from now on; a new process clears an old crash. */
export async function setInstance(catalog: Catalog, uuid: string, instance: string): Promise<void> {
  await catalog
    .updateTable('guests')
    .set({ instance, crashed: 0, stateReason: null })
    .where('uuid', '=', uuid)
    .execute();
}

/**
 * No process is this guest any more.
 * @param instance the one that was, null when none is known
 * @param crash why it ended, when nobody asked for it
 * @returns false, and nothing is written, when another one is the guest by now
 */
export async function clearInstance(
  catalog: Catalog,
  uuid: string,
  instance: string | null,
  crash: string | null,
): Promise<boolean> {
  const { numUpdatedRows } = await catalog
    .updateTable('guests')
    .set({ instance: null, crashed: crash === null ? 0 : 1, stateReason: crash, frozen: 0 })
    .where('uuid', '=', uuid)
    .where('instance', 'is', instance)
    .executeTakeFirstOrThrow();
  return numUpdatedRows > 0n;
}

/** Why a guest is not what it should be, for people. */
export async function setStateReason(
  catalog: Catalog,
  uuid: string,
  stateReason: string | null,
): Promise<void> {
  await catalog.updateTable('guests').set({ stateReason }).where('uuid', '=', uuid).execute();
}

export async function setCurrentImage(catalog: Catalog, uuid: string, image: string | null): Promise<void> {
  await catalog.updateTable('guests').set({ currentImage: image }).where('uuid', '=', uuid).execute();
}

export async function setDefinition(catalog: Catalog, uuid: string, definition: string): Promise<void> {
  await catalog.updateTable('guests').set({ definition }).where('uuid', '=', uuid).execute();
}

/** Whether a guest's file systems are, or may be, frozen. Kept, since nobody else would thaw them. */
export async function setFrozen(catalog: Catalog, uuid: string, frozen: boolean): Promise<void> {
  await catalog
    .updateTable('guests')
    .set({ frozen: frozen ? 1 : 0 })
    .where('uuid', '=', uuid)
    .execute();
}

/** Where the state of the guest's TPM is from now on. */
export async function setTpm(catalog: Catalog, uuid: string, tpm: string): Promise<void> {
  await catalog.updateTable('guests').set({ tpm }).where('uuid', '=', uuid).execute();
}
