/**
 * A guest's disks on this host: which layers a machine stands on, new heads over layers that must not change, and
 * the seal that shows whether anybody else wrote to a layer.
 */
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Catalog } from '../catalog/database.ts';
import { chainOf, getLayer, headsOf, insertLayer, setHead, setIdentity, treesOf } from '../catalog/layers.ts';
import { StasisError } from '../errors.ts';
import { newId } from '../ids.ts';
import type { ImageTool } from '../qemu/image-tool.ts';
import { describeChange, readIdentity, type FileIdentity } from '../storage/identity.ts';
import type { LayerForest } from '../storage/layers.ts';
import type { DiskReaders } from './disk-readers.ts';
import type { ChainLayer, MachineDisks } from './command-line.ts';
import { fromStored } from '../stored.ts';

/** A head that is to be: planned before anything is made, so that recovery knows its name. */
export interface PlannedHead {
  readonly disk: string;
  readonly id: string;
  readonly path: string;
  readonly parent: string;
  readonly sizeBytes: number;
}

export interface GuestDirectory {
  readonly root: string;
  readonly layers: string;
  readonly images: string;
}

/** Where a guest's layers and images are. */
export function guestDirectory(data: string, uuid: string): GuestDirectory {
  const root = join(data, 'guests', uuid);
  return { root, layers: join(root, 'layers'), images: join(root, 'images') };
}

/** The trees over root layers as the pure model sees them: of all guests that share them. What is being read is pinned. */
export async function loadForest(
  { catalog, readers }: { readonly catalog: Catalog; readonly readers: DiskReaders },
  roots: readonly string[],
): Promise<LayerForest> {
  const { layers, heads, pinned } = await treesOf(catalog, roots);
  return {
    layers: layers.map(({ id, parent, root }) => ({ id, parent, root: root === 1 })),
    heads: new Set(heads),
    pinned: new Set([...pinned, ...(await readers.layers())]),
  };
}

/** Names a new head over each of the given layers. */
export async function planHeads(
  catalog: Catalog,
  directory: GuestDirectory,
  over: Iterable<{ disk: string; layer: string }>,
): Promise<PlannedHead[]> {
  const heads: PlannedHead[] = [];
  for (const { disk, layer } of over) {
    const { sizeBytes } = await getLayer(catalog, layer);
    const id = newId();
    heads.push({ disk, id, path: join(directory.layers, `${disk}-${id}.qcow2`), parent: layer, sizeBytes });
  }
  return heads;
}

/** Makes the files of planned heads. Repeatable. */
export async function createHeads(
  catalog: Catalog,
  tool: ImageTool,
  directory: GuestDirectory,
  heads: readonly PlannedHead[],
): Promise<void> {
  await mkdir(directory.layers, { recursive: true, mode: 0o700 });
  for (const head of heads) {
    const parent = await getLayer(catalog, head.parent);
    await tool.createOverlay({
      path: head.path,
      backing: parent.path,
      backingFormat: parent.format,
      virtualSizeBytes: head.sizeBytes,
    });
  }
}

/** The planned heads become what the guest writes to. Part of a commit. */
export async function installHeads(
  catalog: Catalog,
  guest: string,
  heads: readonly PlannedHead[],
): Promise<void> {
  for (const head of heads) {
    await insertLayer(catalog, {
      id: head.id,
      path: head.path,
      format: 'qcow2',
      parent: head.parent,
      root: 0,
      sizeBytes: head.sizeBytes,
      identity: null,
    });
    await setHead(catalog, guest, head.disk, head.id);
  }
}

/** Removes the files of heads that never came to be. Repeatable. */
export async function removeHeads(heads: readonly PlannedHead[]): Promise<void> {
  for (const head of heads) await rm(head.path, { force: true });
}

/** What a machine stands on: the guest's heads, with planned ones in the place of those they will follow. */
export async function machineDisks(
  catalog: Catalog,
  heads: Iterable<{ disk: string; layer: string }>,
  planned: readonly PlannedHead[] = [],
): Promise<MachineDisks> {
  const chains = new Map<string, readonly ChainLayer[]>();
  for (const { disk, layer } of heads) chains.set(disk, await chainOf(catalog, layer));
  for (const head of planned) {
    chains.set(head.disk, [
      { id: head.id, path: head.path, format: 'qcow2' },
      ...(await chainOf(catalog, head.parent)),
    ]);
  }
  return { chains };
}

/**
 * Checks that no layer of the chains was touched since Stasis last let go of it.
 * @throws StasisError `disk-changed` or `disk-missing`, naming disk, file and what is different
 */
export async function checkSeals(
  catalog: Catalog,
  heads: Iterable<{ disk: string; layer: string }>,
): Promise<void> {
  for (const { disk, layer } of heads) {
    for (const { path, identity } of await chainOf(catalog, layer)) {
      const now = await readIdentity(path);
      const change = identity === null ? undefined : describeChange(fromStored<FileIdentity>(identity), now);
      if (change !== undefined) {
        throw new StasisError(
          'disk-changed',
          `disk ${disk}: somebody else changed ${path} (${change}); what stands on it no longer fits. Put the file back as it was`,
          { details: { disk, path, change } },
        );
      }
    }
  }
}

/** Seals layers that nobody writes to any more. */
export async function seal(catalog: Catalog, layers: Iterable<string>): Promise<void> {
  for (const id of layers) {
    const { path } = await getLayer(catalog, id);
    await setIdentity(catalog, id, JSON.stringify(await readIdentity(path)));
  }
}

/** Breaks the seals of layers that are about to be written to. */
export async function unseal(catalog: Catalog, layers: Iterable<string>): Promise<void> {
  for (const id of layers) await setIdentity(catalog, id, null);
}

/** The guest's heads as ids. */
export async function headIds(catalog: Catalog, guest: string): Promise<{ disk: string; layer: string }[]> {
  return (await headsOf(catalog, guest)).map(({ disk, layer }) => ({ disk, layer: layer.id }));
}
