/** Save images as records. */
import type { Selectable } from 'kysely';
import { StasisError } from '../errors.ts';
import type { Catalog } from './database.ts';
import type { ImageTable } from './schema.ts';

export type ImageRecord = Selectable<ImageTable>;

export async function insertImage(
  catalog: Catalog,
  image: Omit<ImageRecord, 'restoredCount' | 'verification' | 'protected' | 'schedule'> &
    Partial<Pick<ImageRecord, 'schedule'>>,
): Promise<void> {
  await catalog
    .insertInto('images')
    .values({ ...image, live: image.live === 1 ? 1 : 0 })
    .execute();
}

/** What can be listed: images that are ready, and those that were and have been found broken. */
export async function listImages(catalog: Catalog, guest?: string): Promise<ImageRecord[]> {
  let query = catalog.selectFrom('images').selectAll().where('state', 'in', ['ready', 'broken']);
  if (guest !== undefined) query = query.where('guest', '=', guest);
  return query.orderBy('createdAt').orderBy('id').execute();
}

export async function findImage(
  catalog: Catalog,
  guest: string,
  name: string,
): Promise<ImageRecord | undefined> {
  return catalog
    .selectFrom('images')
    .selectAll()
    .where('guest', '=', guest)
    .where('name', '=', name)
    .where('state', 'in', ['ready', 'broken'])
    .executeTakeFirst();
}

export async function findImageById(catalog: Catalog, id: string): Promise<ImageRecord | undefined> {
  return catalog.selectFrom('images').selectAll().where('id', '=', id).executeTakeFirst();
}

/** @throws StasisError `internal` when there is none: an id always comes from the catalog */
export async function getImageById(catalog: Catalog, id: string): Promise<ImageRecord> {
  const image = await findImageById(catalog, id);
  if (image === undefined) throw new StasisError('internal', `the catalog has no image ${id}`);
  return image;
}

export async function updateImage(
  catalog: Catalog,
  id: string,
  values: Partial<Pick<ImageRecord, 'state' | 'parent' | 'manifest' | 'verifiedAt' | 'verification'>>,
): Promise<void> {
  await catalog.updateTable('images').set(values).where('id', '=', id).execute();
}

/** Whether nothing may remove it. */
export async function setProtected(catalog: Catalog, id: string, isProtected: boolean): Promise<void> {
  await catalog
    .updateTable('images')
    .set({ protected: isProtected ? 1 : 0 })
    .where('id', '=', id)
    .execute();
}

/** An image was restored once more: several may be at once. */
export async function countRestore(
  catalog: Catalog,
  id: string,
  restoreMethod: ImageRecord['restoreMethod'],
): Promise<void> {
  await catalog
    .updateTable('images')
    .set((column) => ({ restoreMethod, restoredCount: column('restoredCount', '+', 1) }))
    .where('id', '=', id)
    .execute();
}

/** The children of a deleted image become children of its parent: the tree keeps its shape. */
export async function adoptChildren(catalog: Catalog, id: string, parent: string | null): Promise<void> {
  await catalog.updateTable('images').set({ parent }).where('parent', '=', id).execute();
  await catalog.updateTable('guests').set({ currentImage: parent }).where('currentImage', '=', id).execute();
}

export async function deleteImage(catalog: Catalog, id: string): Promise<void> {
  await catalog.deleteFrom('images').where('id', '=', id).execute();
}

/** Names of some images by their ids: of those, not of all that their guests have. */
export async function namesOf(catalog: Catalog, ids: readonly string[]): Promise<Map<string, string>> {
  const rows = await catalog
    .selectFrom('images')
    .select(['id', 'name'])
    .where('id', 'in', ids)
    .where('state', '!=', 'deleting')
    .execute();
  return new Map(rows.map(({ id, name }) => [id, name]));
}

/** Names of the given guests' images by their ids. */
export async function imageNames(catalog: Catalog, guests: readonly string[]): Promise<Map<string, string>> {
  const rows = await catalog
    .selectFrom('images')
    .select(['id', 'name'])
    .where('guest', 'in', guests)
    .where('state', '!=', 'deleting')
    .execute();
  return new Map(rows.map(({ id, name }) => [id, name]));
}

/** How many images a guest has, and its newest. */
export interface ImageCount {
  readonly count: number;
  readonly lastName: string;
  readonly lastAt: string;
}

/** Of the given guests, as far as they have any. */
export async function countImages(
  catalog: Catalog,
  guests: readonly string[],
): Promise<Map<string, ImageCount>> {
  const rows = await catalog
    .selectFrom('images')
    .select((select) => [
      'guest',
      'name',
      select.fn.countAll<number>().as('count'),
      select.fn.max('createdAt').as('lastAt'),
    ])
    .where('guest', 'in', guests)
    .where('state', 'in', ['ready', 'broken'])
    .groupBy('guest')
    .execute();
  // SQLite: with max() the bare columns come from the row that has the maximum.
  return new Map(
    rows.map((row) => [row.guest, { count: row.count, lastName: row.name, lastAt: row.lastAt }]),
  );
}
