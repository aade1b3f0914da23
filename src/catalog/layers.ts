/** Layers, heads and pins as records. What they mean stands in storage/layers.ts. */
import { sql, type RawBuilder, type Selectable, type SqlBool } from 'kysely';
import type { DriverName } from '../api/constants.ts';
import { StasisError } from '../errors.ts';
import type { Catalog, CatalogDatabase } from './database.ts';
import type { LayerTable } from './schema.ts';
import { untilWritten } from './until-written.ts';

export type LayerRecord = Selectable<LayerTable>;

export interface DiskLayer {
  readonly disk: string;
  readonly layer: LayerRecord;
}

export async function insertLayer(catalog: Catalog, layer: LayerRecord): Promise<void> {
  await catalog
    .insertInto('layers')
    .values({ ...layer, root: layer.root === 1 ? 1 : 0 })
    .execute();
}

export async function findLayer(catalog: Catalog, id: string): Promise<LayerRecord | undefined> {
  return catalog.selectFrom('layers').selectAll().where('id', '=', id).executeTakeFirst();
}

/** @throws StasisError `internal` when there is none: an id always comes from the catalog */
export async function getLayer(catalog: Catalog, id: string): Promise<LayerRecord> {
  const layer = await findLayer(catalog, id);
  if (layer === undefined) throw new StasisError('internal', `the catalog has no layer ${id}`);
  return layer;
}

export async function listLayers(catalog: Catalog): Promise<LayerRecord[]> {
  return catalog.selectFrom('layers').selectAll().execute();
}

/** All layers that were made for a guest, and its roots, in the order in which they were made. */
export async function layersMadeFor(catalog: Catalog, guest: string): Promise<LayerRecord[]> {
  return catalog
    .selectFrom('layers')
    .selectAll()
    .where('guest', '=', guest)
    .orderBy(sql`rowid`)
    .execute();
}

export async function childrenOf(catalog: Catalog, id: string): Promise<LayerRecord[]> {
  return catalog.selectFrom('layers').selectAll().where('parent', '=', id).execute();
}

/** The trees of a guest's disks and images, each under the id of its root, which may be gone: see `LayerTable.tree`. */
export async function rootsOfGuest(catalog: Catalog, guest: string): Promise<string[]> {
  const { rows } = await sql<{ tree: string }>`
    select tree from layers join heads on heads.layer = layers.id where heads.guest = ${guest}
    union
    select tree from layers join pins on pins.layer = layers.id join images on images.id = pins.image
    where images.guest = ${guest}`.execute(catalog);
  return rows.map(({ tree }) => tree);
}

/** Ids of the given layers and of all that stand on them, whoever's they are. */
const standingOn = (layers: readonly string[]) => sql<string>`
  with recursive tree (id) as (
    select id from layers where id in (${sql.join(layers)})
    union all select layers.id from layers join tree on layers.parent = tree.id)
  select id from tree`;

/** All layers of the given trees, those that stand on no other too, and what holds them. */
export async function treesOf(
  catalog: Catalog,
  roots: readonly string[],
): Promise<{ layers: LayerRecord[]; heads: { guest: string; layer: string }[]; pinned: string[] }> {
  if (roots.length === 0) return { layers: [], heads: [], pinned: [] };
  const layers = await catalog
    .selectFrom('layers')
    .selectAll()
    .where('tree', 'in', roots)
    .orderBy(sql`rowid`) // in the order in which they were made
    .execute();
  const heads = await catalog
    .selectFrom('heads')
    .innerJoin('layers', 'layers.id', 'heads.layer')
    .select(['heads.guest', 'heads.layer'])
    .where('tree', 'in', roots)
    .execute();
  const pins = await catalog
    .selectFrom('pins')
    .innerJoin('layers', 'layers.id', 'pins.layer')
    .select('pins.layer')
    .distinct()
    .where('tree', 'in', roots)
    .execute();
  return { layers, heads, pinned: pins.map(({ layer }) => layer) };
}

/** The guests whose disks or images stand on any of the given layers. */
export async function guestsOver(catalog: Catalog, layers: readonly string[]): Promise<string[]> {
  if (layers.length === 0) return [];
  const inTrees = sql<SqlBool>`layer in (${standingOn(layers)})`;
  const heads = await catalog.selectFrom('heads').select('guest').distinct().where(inTrees).execute();
  const pins = await catalog
    .selectFrom('pins')
    .innerJoin('images', 'images.id', 'pins.image')
    .select('guest')
    .distinct()
    .where(inTrees)
    .execute();
  return [...new Set([...heads, ...pins].map(({ guest }) => guest))];
}

/** The guest that writes to a layer. */
export async function writerOf(catalog: Catalog, layer: string): Promise<string | undefined> {
  const head = await catalog
    .selectFrom('heads')
    .select('guest')
    .where('layer', '=', layer)
    .executeTakeFirst();
  return head?.guest;
}

/** From the layer itself down to its root. */
export async function chainOf(catalog: Catalog, id: string): Promise<LayerRecord[]> {
  const chain: LayerRecord[] = [];
  for (let next: string | null = id; next !== null;) {
    const layer: LayerRecord = await getLayer(catalog, next);
    chain.push(layer);
    next = layer.parent;
  }
  return chain;
}

export async function setParent(catalog: Catalog, id: string, parent: string | null): Promise<void> {
  await catalog.updateTable('layers').set({ parent }).where('id', '=', id).execute();
}

/** A layer that looks otherwise, or may be written to, holds something else: its checksum is forgotten. */
export async function setIdentity(catalog: Catalog, id: string, identity: string | null): Promise<void> {
  await catalog.deleteFrom('fileSums').where('layer', '=', id).where('seal', 'is not', identity).execute();
  await catalog.updateTable('layers').set({ identity }).where('id', '=', id).execute();
}

export async function deleteLayer(catalog: Catalog, id: string): Promise<void> {
  await catalog.deleteFrom('layers').where('id', '=', id).execute();
}

export async function headsOf(catalog: Catalog, guest: string): Promise<DiskLayer[]> {
  const heads = await catalog.selectFrom('heads').selectAll().where('guest', '=', guest).execute();
  return Promise.all(heads.map(async ({ disk, layer }) => ({ disk, layer: await getLayer(catalog, layer) })));
}

export async function setHead(catalog: Catalog, guest: string, disk: string, layer: string): Promise<void> {
  await catalog
    .insertInto('heads')
    .values({ guest, disk, layer })
    .onConflict((conflict) => conflict.columns(['guest', 'disk']).doUpdateSet({ layer }))
    .execute();
}

export async function deleteHeads(catalog: Catalog, guest: string): Promise<void> {
  await catalog.deleteFrom('heads').where('guest', '=', guest).execute();
}

export async function pinsOf(catalog: Catalog, image: string): Promise<DiskLayer[]> {
  const pins = await catalog.selectFrom('pins').selectAll().where('image', '=', image).execute();
  return Promise.all(pins.map(async ({ disk, layer }) => ({ disk, layer: await getLayer(catalog, layer) })));
}

export async function insertPin(catalog: Catalog, image: string, disk: string, layer: string): Promise<void> {
  await catalog.insertInto('pins').values({ image, disk, layer }).execute();
}

export async function deletePins(catalog: Catalog, image: string): Promise<void> {
  await catalog.deleteFrom('pins').where('image', '=', image).execute();
}

/** Ids of the images that pin a layer. */
export async function pinnedBy(catalog: Catalog, layer: string): Promise<string[]> {
  const pins = await catalog.selectFrom('pins').select('image').where('layer', '=', layer).execute();
  return pins.map((pin) => pin.image);
}

/** Every pin and every head that stands on `from` moves to `to`: the two have become one layer. */
export async function moveHolds(catalog: Catalog, from: string, to: string): Promise<void> {
  await catalog.updateTable('pins').set({ layer: to }).where('layer', '=', from).execute();
  await catalog.updateTable('heads').set({ layer: to }).where('layer', '=', from).execute();
}

/** A guest's disk as it is now, without the rows of its whole chain. */
export interface HeadSummary {
  readonly guest: string;
  readonly disk: string;
  readonly path: string;
  readonly tree: string;
  readonly sizeBytes: number;
  /** layers from the head down to the root */
  readonly layers: number;
}

/** Heads of the given guests with the length of their chains, in one query however many layers there are. */
export async function headSummaries(
  catalog: CatalogDatabase,
  guests: readonly string[],
): Promise<HeadSummary[]> {
  if (guests.length === 0) return [];
  if (guests.length === 1) return summariesWhere(catalog, sql`heads.guest = ${guests[0]}`);
  const asked = new Set(guests);
  return (await allSummaries(catalog)).filter(({ guest }) => asked.has(guest));
}

const allSummaries = untilWritten((catalog) => summariesWhere(catalog, sql`true`));

async function summariesWhere(catalog: Catalog, isAsked: RawBuilder<unknown>): Promise<HeadSummary[]> {
  const { rows } = await sql<HeadSummary>`
    select heads.guest, heads.disk, head.path, head.tree, head.sizeBytes, (
      with recursive chain (parent) as (
        select head.parent union all select layers.parent from chain join layers on layers.id = chain.parent)
      select count(*) from chain) as layers
    from heads join layers head on head.id = heads.layer
    where ${isAsked}`.execute(catalog);
  return rows;
}

/** The layers of one driver that images which can be restored have, each with its image. */
export async function layersOfImages(
  catalog: Catalog,
  driver: DriverName,
): Promise<(LayerRecord & { readonly image: string })[]> {
  return catalog
    .selectFrom('images')
    .innerJoin('pins', 'pins.image', 'images.id')
    .innerJoin('layers', 'layers.id', 'pins.layer')
    .selectAll('layers')
    .select('pins.image')
    .where('images.state', '=', 'ready')
    .where('driver', '=', driver)
    .execute();
}

/** What an image holds of a disk. */
export interface PinnedLayer {
  readonly image: string;
  readonly disk: string;
  readonly layerId: string;
  readonly tree: string;
  readonly path: string;
  readonly format: string;
  readonly sizeBytes: number;
  readonly root: number;
  /** what it occupied when Stasis last let go of it */
  readonly storedBytes: number | null;
}

/** The pinned layers of the given guests' images, in one query. */
export async function pinnedLayers(catalog: Catalog, guests: readonly string[]): Promise<PinnedLayer[]> {
  return catalog
    .selectFrom('images')
    .innerJoin('pins', 'pins.image', 'images.id')
    .innerJoin('layers', 'layers.id', 'pins.layer')
    .select(['image', 'disk', 'layers.id as layerId', 'tree', 'path', 'format', 'sizeBytes', 'root'])
    .select(sql<number | null>`json_extract(identity, '$.storedBytes')`.as('storedBytes'))
    .where('images.guest', 'in', guests)
    .execute();
}
