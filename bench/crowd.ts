/**
 * A home with many guests and images, made without taking them: ten thousand real saves take hours, and what is
 * measured here is only how the catalog, the daemon and the command line carry the number. The records are written
 * through the catalog's own functions; the files behind them are not there, and nor are the records beside those: a daemon
 * would write ten thousand files first, which one that has taken the images itself has long done.
 */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { openCatalog } from '../src/catalog/database.ts';
import { insertGuest, setCurrentImage } from '../src/catalog/guests.ts';
import { insertImage } from '../src/catalog/images.ts';
import { insertLayer, insertPin, setHead } from '../src/catalog/layers.ts';
import { pinDefinition } from '../src/guests/definition.ts';
import { guestDirectory } from '../src/guests/disks.ts';
import { newId } from '../src/ids.ts';
import type { Manifest, ManifestDisk } from '../src/images/manifest.ts';
import { sessionPaths } from '../src/paths.ts';
import type { FileIdentity } from '../src/storage/identity.ts';

const GIB = 1024 ** 3;
const DISKS = ['root', 'data'];

/** Fills an empty home. @param images in all, spread evenly; each guest's are a chain, each the child of the one before */
export async function crowd(home: string, guests: number, images: number): Promise<void> {
  const paths = sessionPaths({ STASIS_HOME: home });
  await mkdir(paths.data, { recursive: true, mode: 0o700 });
  const catalog = await openCatalog(join(paths.data, 'catalog.sqlite'));
  try {
    await catalog.transaction().execute(async (transaction) => {
      for (let guest = 0; guest < guests; guest += 1)
        await addGuest(transaction, paths.data, `guest${guest}`, images / guests);
      await transaction
        .updateTable('records')
        .set((record) => ({ written: record.ref('version') }))
        .execute();
    });
  } finally {
    await catalog.destroy();
  }
}

type Transaction = Parameters<typeof insertGuest>[0];

async function addGuest(catalog: Transaction, data: string, name: string, images: number): Promise<void> {
  const definition = await pinDefinition(
    {
      name,
      memory: '4GiB',
      cpus: 2,
      networks: [{ type: 'user' }],
      disks: DISKS.map((disk) => ({
        name: disk,
        path: join('/srv/vms', `${name}-${disk}.qcow2`),
        format: 'qcow2',
      })),
    },
    '/srv/vms',
    {
      resolveMachine: () => Promise.resolve('pc-q35-10.0'),
      resolveAccelerator: () => Promise.resolve('tcg'),
      resolveFirmware: () => Promise.reject(new Error('no guest of this crowd has UEFI')),
    },
  );
  const { uuid } = definition;
  await insertGuest(catalog, {
    uuid,
    name,
    definition: JSON.stringify(definition),
    instance: null,
    crashed: 0,
    stateReason: null,
    currentImage: null,
    createdAt: new Date().toISOString(),
  });
  const heads = new Map<string, CrowdLayer>();
  for (const { name: disk, path } of definition.disks)
    heads.set(disk, await addLayer(catalog, { guest: uuid, path }, null));
  let parent: string | null = null;
  for (let number = 0; number < images; number += 1) {
    const id = newId();
    const createdAt = new Date(Date.UTC(2026, 0, 1) + number * 3_600_000).toISOString();
    const manifest: Manifest = {
      version: 1,
      id,
      name: `hourly-${number}`,
      guest: { name, uuid },
      createdAt,
      live: true,
      description: 'taken by the hour',
      method: 'precopy',
      pauseMs: 13,
      saveMs: 1400,
      memoryBytes: definition.memoryBytes,
      memoryFile: { name: 'memory', offset: 4096, storedBytes: GIB },
      guestWasPaused: false,
      qemuVersion: '10.0.2 (Debian 1:10.0.2+ds-2+deb13u1~bpo12+1)',
      devices: [
        'timer',
        'cpu',
        'mc146818rtc',
        '0000:00:08.0/virtio-blk',
        '0000:00:09.0/virtio-blk',
        '0000:00:18.0/virtio-net',
      ],
      definition,
      disks: [...heads].map(([disk, layer]) => ({ name: disk, sizeBytes: 40 * GIB, layer })),
    };
    await insertImage(catalog, {
      id,
      guest: uuid,
      name: manifest.name,
      state: 'ready',
      parent,
      createdAt,
      live: 1,
      memoryBytes: manifest.memoryBytes,
      description: manifest.description,
      verifiedAt: null,
      restoreMethod: null,
      manifest: JSON.stringify(manifest),
    });
    for (const [disk, layer] of heads) {
      await insertPin(catalog, id, disk, layer.id);
      const path = join(guestDirectory(data, uuid).layers, `${disk}-${newId()}.qcow2`);
      heads.set(disk, await addLayer(catalog, { guest: uuid, path }, layer));
    }
    parent = id;
  }
  for (const [disk, layer] of heads) await setHead(catalog, uuid, disk, layer.id);
  await setCurrentImage(catalog, uuid, parent);
}

type CrowdLayer = ManifestDisk['layer'] & { readonly tree: string };

/** A layer over another, or a root. */
async function addLayer(
  catalog: Transaction,
  { guest, path }: { readonly guest: string; readonly path: string },
  below: CrowdLayer | null,
): Promise<CrowdLayer> {
  const id = newId();
  const tree = below?.tree ?? id;
  const identity: FileIdentity = {
    inode: '1',
    sizeBytes: '196616',
    modifiedNs: '1',
    header: 'x'.repeat(44),
    storedBytes: 200_704,
  };
  await insertLayer(catalog, {
    id,
    path,
    format: 'qcow2',
    parent: below?.id ?? null,
    root: below === null ? 1 : 0,
    driver: 'overlay',
    tree,
    guest,
    sizeBytes: 40 * GIB,
    identity: JSON.stringify(identity),
  });
  return { id, tree, path, format: 'qcow2' };
}
