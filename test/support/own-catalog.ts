import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openCatalog, type CatalogDatabase } from '../../src/catalog/database.ts';
import { insertGuest } from '../../src/catalog/guests.ts';

export interface OwnCatalog extends AsyncDisposable {
  readonly catalog: CatalogDatabase;
}

/** An empty catalog in a directory of its own, which goes with it. */
export async function ownCatalog(): Promise<OwnCatalog> {
  const home = await mkdtemp(join(tmpdir(), 'stasis-catalog-'));
  const catalog = await openCatalog(join(home, 'catalog.sqlite'));
  return {
    catalog,
    async [Symbol.asyncDispose]() {
      await catalog.destroy();
      await rm(home, { recursive: true });
    },
  };
}

/** A guest that never ran, named by its UUID. */
export async function insertGuestNamed(catalog: CatalogDatabase, uuid: string): Promise<void> {
  await insertGuest(catalog, {
    ...{ uuid, name: uuid, definition: '{}', instance: null, crashed: 0 },
    ...{ stateReason: null, currentImage: null, createdAt: '' },
  });
}
