/** Who holds which layer: the names behind heads and pins, for people. */
import { sql } from 'kysely';
import type { Catalog } from './database.ts';
import type { LayerRecord } from './layers.ts';

/** A guest that writes to a layer, or one of its images that pins it. */
export interface Hold {
  readonly layer: string;
  readonly guest: string;
  /** null for the guest itself */
  readonly image: string | null;
}

/** What holds the layers of given trees, whoever's they are: two queries, however many there are. */
export async function holdsOf(catalog: Catalog, trees: readonly string[]): Promise<Hold[]> {
  if (trees.length === 0) return [];
  const heads = await catalog
    .selectFrom('heads')
    .innerJoin('guests', 'guests.uuid', 'heads.guest')
    .innerJoin('layers', 'layers.id', 'heads.layer')
    .select(['layer', 'guests.name as guest'])
    .where('tree', 'in', trees)
    .orderBy('guests.name')
    .execute();
  const pins = await catalog
    .selectFrom('pins')
    .innerJoin('images', 'images.id', 'pins.image')
    .innerJoin('guests', 'guests.uuid', 'images.guest')
    .innerJoin('layers', 'layers.id', 'pins.layer')
    .select(['layer', 'guests.name as guest', 'images.name as image'])
    .where('tree', 'in', trees)
    .where('images.state', 'in', ['ready', 'broken'])
    .orderBy('images.createdAt')
    .execute();
  return [...heads.map((head) => ({ ...head, image: null })), ...pins];
}

/** A layer with what it occupies, and how much holds it. */
export interface WeighedLayer extends Omit<LayerRecord, 'identity' | 'tree' | 'guest'> {
  /** when Stasis last let go of it; null while a guest may write to it */
  readonly storedBytes: number | null;
  readonly pins: number;
}

/** The layers of the trees in which the given guests have images, in two queries however many there are. */
export async function weighedLayers(
  catalog: Catalog,
  guests: readonly string[],
): Promise<{ layers: WeighedLayer[]; heads: string[] }> {
  if (guests.length === 0) return { layers: [], heads: [] };
  const trees = sql`
    select distinct tree from images join pins on pins.image = images.id join layers on layers.id = pins.layer
    where images.guest in (${sql.join(guests)})`;
  const { rows } = await sql<WeighedLayer>`
    select id, path, format, parent, root, sizeBytes, driver, json_extract(identity, '$.storedBytes') as storedBytes,
      (select count(*) from pins where pins.layer = layers.id) as pins
    from layers where tree in (${trees})`.execute(catalog);
  const { rows: heads } = await sql<{ layer: string }>`
    select layer from heads join layers on layers.id = heads.layer where tree in (${trees})`.execute(catalog);
  return { layers: rows, heads: heads.map(({ layer }) => layer) };
}
