/** Who holds which layer: the names behind heads and pins, for people. */
import type { Catalog } from './database.ts';

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
