/**
 * A guest's disks on this host: which layers a machine stands on, new heads over layers that must not change, and
 * the seal that shows whether anybody else wrote to a layer.
 */
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { DriverName } from '../api/constants.ts';
import type { Catalog } from '../catalog/database.ts';
import {
  chainOf,
  getLayer,
  headsOf,
  insertLayer,
  setHead,
  setIdentity,
  treesOf,
  type LayerRecord,
} from '../catalog/layers.ts';
import { StasisError } from '../errors.ts';
import type { LayerFile, Place, PlannedLayer, StorageDriver } from '../storage/driver.ts';
import type { Drivers } from '../storage/drivers.ts';
import { syncPath } from '../storage/durable.ts';
import { describeChange, provesContent, type FileIdentity } from '../storage/identity.ts';
import type { LayerForest } from '../storage/layers.ts';
import type { DiskReaders } from './disk-readers.ts';
import type { ChainLayer, MachineDisks } from './command-line.ts';
import type { Definition } from './definition.ts';
import type { Ownership } from './ownership.ts';
import { fromStored } from '../stored.ts';

/** What is needed to work with layers: their records, and who makes them. */
export interface LayerStore {
  readonly catalog: Catalog;
  readonly drivers: Drivers;
  readonly ownership: Ownership;
}

export interface DiskLayerId {
  readonly disk: string;
  readonly layer: string;
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

/** Whose a disk is and where new layers of it go. */
export interface GuestDisks {
  readonly definition: Definition;
  /** the home's directory for data */
  readonly data: string;
}

/** Disks defined before there was a choice have overlays. */
function driverName(definition: Definition, disk: string): DriverName {
  return definition.disks.find(({ name }) => name === disk)?.driver ?? 'overlay';
}

export function driverOf({ drivers }: LayerStore, definition: Definition, disk: string): StorageDriver {
  return drivers.get(driverName(definition, disk));
}

export function placeOf(store: LayerStore, { definition, data }: GuestDisks, disk: string): Place {
  const { uuid, disks } = definition;
  const { path: root = '', snapshotBytes: reserveBytes } = disks.find(({ name }) => name === disk) ?? {};
  const own = driverOf(store, definition, disk).layerDirectory?.(root, uuid);
  return { disk, guest: uuid, root, directory: own ?? guestDirectory(data, uuid).layers, reserveBytes };
}

/** Removes what drivers made for a guest besides its layers. Repeatable. */
export async function leaveDisks(store: LayerStore, guest: GuestDisks): Promise<void> {
  for (const { name } of guest.definition.disks)
    await driverOf(store, guest.definition, name).leave?.(placeOf(store, guest, name));
}

/** Trees of layers as the pure model sees them: of all guests that share them. What is being read counts as pinned. */
export async function loadForest(
  { catalog, drivers, readers }: LayerStore & { readonly readers: DiskReaders },
  roots: readonly string[],
): Promise<LayerForest> {
  const { layers, heads, pinned } = await treesOf(catalog, roots);
  return {
    layers: layers.map((layer) => ({
      id: layer.id,
      parent: layer.parent,
      root: layer.root === 1,
      fixed: !drivers.get(layer.driver).canTakeIn(layer),
    })),
    heads: new Set(heads.map(({ layer }) => layer)),
    pinned: new Set([...pinned, ...(await readers.layers())]),
    owners: new Map(layers.filter(({ root }) => root === 1).flatMap((root) => ownerOf(root, layers, heads))),
  };
}

function ownerOf(
  root: LayerRecord,
  layers: readonly LayerRecord[],
  heads: readonly { guest: string; layer: string }[],
): [string, string][] {
  const inTree = new Set(layers.filter(({ tree }) => tree === root.tree).map(({ id }) => id));
  const owner = heads.find(({ guest, layer }) => guest === root.guest && inTree.has(layer));
  return owner === undefined ? [] : [[root.id, owner.layer]];
}

/** Names a new head made from each of the given layers, as the disks' drivers make them. */
export async function planHeads(
  store: LayerStore,
  guest: GuestDisks,
  from: Iterable<DiskLayerId>,
): Promise<PlannedLayer[]> {
  const heads: PlannedLayer[] = [];
  for (const { disk, layer } of from) {
    const driver = driverOf(store, guest.definition, disk);
    heads.push(await driver.planHead(await getLayer(store.catalog, layer), placeOf(store, guest, disk)));
  }
  return heads;
}

/** Makes planned layers. Repeatable. */
export async function makeLayers(
  { catalog, drivers }: LayerStore,
  planned: readonly PlannedLayer[],
  signal?: AbortSignal,
): Promise<void> {
  for (const layer of planned)
    await drivers.get(layer.driver).make(layer, await getLayer(catalog, layer.from), signal);
}

/** Makes layers that were made survive a power cut: before the commit that names them. */
export async function settleLayers({ drivers }: LayerStore, made: readonly PlannedLayer[]): Promise<void> {
  await Promise.all(made.map((layer) => drivers.get(layer.driver).settle(layer)));
}

/** A planned layer gets its record. Part of a commit. */
export async function insertPlanned(catalog: Catalog, guest: string, planned: PlannedLayer): Promise<void> {
  const { id, path, format, parent, sizeBytes, driver, from } = planned;
  const { tree } = await getLayer(catalog, from);
  await insertLayer(catalog, {
    ...{ id, path, format, parent, sizeBytes, driver, tree, guest },
    root: 0,
    identity: null,
  });
}

/** The planned heads become what the guest writes to. Part of a commit. */
export async function installHeads(
  catalog: Catalog,
  guest: string,
  heads: readonly PlannedLayer[],
): Promise<void> {
  for (const head of heads) {
    await insertPlanned(catalog, guest, head);
    await setHead(catalog, guest, head.disk, head.id);
  }
}

/** Removes what was made of layers that never came to be. Repeatable. */
export async function removeLayers({ drivers }: LayerStore, planned: readonly PlannedLayer[]): Promise<void> {
  for (const layer of planned) await drivers.get(layer.driver).remove(layer);
}

/** What a machine stands on: the guest's heads, with planned ones in the place of those they will follow. */
export async function machineDisks(
  catalog: Catalog,
  heads: Iterable<DiskLayerId>,
  planned: readonly PlannedLayer[] = [],
): Promise<MachineDisks> {
  const chains = new Map<string, readonly ChainLayer[]>();
  for (const { disk, layer } of heads) chains.set(disk, await openable(await chainOf(catalog, layer)));
  for (const head of planned) {
    const below = head.parent === null ? [] : await chainOf(catalog, head.parent);
    chains.set(head.disk, await openable([head, ...below]));
  }
  return { chains };
}

/** QEMU opens a file and a device by different names. A file that is missing it tells of itself. */
async function openable(layers: readonly LayerFile[]): Promise<ChainLayer[]> {
  return Promise.all(
    layers.map(async ({ id, path, format }) => {
      const isDevice = await stat(path).then(
        (found) => found.isBlockDevice(),
        () => false,
      );
      return { id, path, format, isDevice };
    }),
  );
}

/**
 * Checks that no layer of the chains was touched since Stasis last let go of it.
 * @throws StasisError `disk-changed` or `disk-missing`, naming disk, file and what is different
 */
export async function checkSeals(
  { catalog, drivers }: LayerStore,
  heads: Iterable<DiskLayerId>,
): Promise<void> {
  for (const { disk, layer } of heads) {
    for (const { path, driver, identity } of await chainOf(catalog, layer)) {
      const now = await drivers.get(driver).identity({ path, driver });
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

/**
 * What a layer looks like that nobody writes to any more, and will look like after a power cut.
 * @throws StasisError `disk-missing`, `disk-changed`
 */
export async function sealOf(
  drivers: Drivers,
  layer: Pick<LayerFile, 'path' | 'driver'>,
): Promise<FileIdentity> {
  const identity = await drivers.get(layer.driver).identity(layer);
  if (provesContent(identity)) await syncPath(layer.path);
  return identity;
}

/** Seals layers that nobody writes to any more. @throws StasisError `disk-missing`, `disk-changed` */
export async function seal(store: LayerStore, layers: Iterable<string>): Promise<void> {
  for (const id of layers) await setIdentity(store.catalog, id, await identityToSeal(store, id));
}

/** What a layer that nobody writes to any more is sealed with. @throws StasisError `disk-missing`, `disk-changed` */
export async function identityToSeal(
  { catalog, drivers, ownership }: LayerStore,
  id: string,
): Promise<string> {
  const layer = await getLayer(catalog, id);
  await ownership.letReadLayer(layer);
  return JSON.stringify(await sealOf(drivers, layer));
}

/** Breaks the seals of layers that are about to be written to. */
export async function unseal(catalog: Catalog, layers: Iterable<string>): Promise<void> {
  for (const id of layers) await setIdentity(catalog, id, null);
}

/** The guest's heads as ids. */
export async function headIds(catalog: Catalog, guest: string): Promise<DiskLayerId[]> {
  return (await headsOf(catalog, guest)).map(({ disk, layer }) => ({ disk, layer: layer.id }));
}
