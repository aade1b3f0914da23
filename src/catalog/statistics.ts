/** Sums over all that is kept, by SQL alone: they read no manifest, however many images there are (see the migration `audit`). */
import { sql } from 'kysely';
import type { Catalog } from './database.ts';
import type { GuestRecord } from './guests.ts';
import type { ImageTable } from './schema.ts';
import { untilWritten } from './until-written.ts';

export interface StoredBytes {
  /** ready and broken ones */
  readonly images: number;
  /** of memory files and pictures of screens */
  readonly memoryBytes: number;
  /** of layers that images hold, each counted once, as they were when Stasis last let go of them; not of the users' own files */
  readonly layerBytes: number;
}

/** What images occupy. */
export const storedBytes = untilWritten(async (catalog): Promise<StoredBytes> => {
  const { rows: images } = await sql<{ images: number; memoryBytes: number }>`
    select count(*) as images, coalesce(sum(json_extract(manifest, '$.memoryFile.storedBytes')), 0)
      + coalesce(sum(json_extract(manifest, '$.screen.storedBytes')), 0) as memoryBytes
    from images where state in ('ready', 'broken')`.execute(catalog);
  const { rows: layers } = await sql<{ layerBytes: number }>`
    select coalesce(sum(json_extract(identity, '$.storedBytes')), 0) as layerBytes
    from layers where root = 0 and exists (select 1 from pins where pins.layer = layers.id)`.execute(catalog);
  return {
    images: images[0]?.images ?? 0,
    memoryBytes: images[0]?.memoryBytes ?? 0,
    layerBytes: layers[0]?.layerBytes ?? 0,
  };
});

export async function countImagesByState(catalog: Catalog): Promise<Map<ImageTable['state'], number>> {
  const rows = await catalog
    .selectFrom('images')
    .select((select) => ['state', select.fn.countAll<number>().as('count')])
    .groupBy('state')
    .execute();
  return new Map(rows.map(({ state, count }) => [state, count]));
}

/** What says which state a guest is in, without its definition. */
export async function guestStates(
  catalog: Catalog,
): Promise<Pick<GuestRecord, 'uuid' | 'name' | 'instance' | 'crashed'>[]> {
  return catalog.selectFrom('guests').select(['uuid', 'name', 'instance', 'crashed']).execute();
}

/** How new a guest's images are. */
export interface NewestImages {
  readonly name: string;
  /** when the newest that can be restored was taken; null when there is none */
  readonly newestAt: string | null;
  /** the same of those that were verified */
  readonly newestVerifiedAt: string | null;
}

/** For each guest, also those without images. */
export async function newestImages(catalog: Catalog): Promise<NewestImages[]> {
  const { rows } = await sql<NewestImages>`
    select name,
      (select max(createdAt) from images where guest = uuid and state = 'ready') as newestAt,
      (select max(createdAt) from images where guest = uuid and state = 'ready' and verifiedAt is not null) as newestVerifiedAt
    from guests order by name`.execute(catalog);
  return rows;
}

/** Operations that are under way, or could be neither finished nor undone. */
export async function countUnsettled(catalog: Catalog): Promise<number> {
  const { count } = await catalog
    .selectFrom('operations')
    .select((select) => select.fn.countAll<number>().as('count'))
    .where('settled', '=', 0)
    .executeTakeFirstOrThrow();
  return count;
}

/** Where the users' own disks are. */
export async function rootPaths(catalog: Catalog): Promise<string[]> {
  const rows = await catalog
    .selectFrom('layers')
    .select('path')
    .where('root', '=', 1)
    .where('driver', 'in', ['overlay', 'reflink'])
    .execute();
  return rows.map(({ path }) => path);
}
