/** Who holds which layer: the names behind heads and pins, for people. */
import { sql, type SqlBool } from 'kysely';
import type { Catalog } from './database.ts';
import { treesOver } from './layers.ts';

/** A guest that writes to a layer, or one of its images that pins it. */
export interface Hold {
  readonly layer: string;
  readonly guest: string;
  /** null for the guest itself */
  readonly image: string | null;
}

/** What holds the layers over given roots, whoever's they are: two queries, however many there are. */
export async function holdsOver(catalog: Catalog, roots: readonly string[]): Promise<Hold[]> {
  if (roots.length === 0) return [];
  const inTrees = sql<SqlBool>`layer in (${treesOver(roots)})`;
  const heads = await catalog
    .selectFrom('heads')
    .innerJoin('guests', 'guests.uuid', 'heads.guest')
    .select(['layer', 'guests.name as guest'])
    .where(inTrees)
    .orderBy('guests.name')
    .execute();
  const pins = await catalog
    .selectFrom('pins')
    .innerJoin('images', 'images.id', 'pins.image')
    .innerJoin('guests', 'guests.uuid', 'images.guest')
    .select(['layer', 'guests.name as guest', 'images.name as image'])
    .where(inTrees)
    .where('images.state', 'in', ['ready', 'broken'])
    .orderBy('images.createdAt')
    .execute();
  return [...heads.map((head) => ({ ...head, image: null })), ...pins];
}
