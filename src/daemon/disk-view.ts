/** The layers of a guest's disks as clients see them. */
import type { DiskExport, DiskTree } from '../api/schemas.ts';
import type { GuestRecord } from '../catalog/guests.ts';
import { holdsOf } from '../catalog/holds.ts';
import { headsOf, treesOf, type LayerRecord } from '../catalog/layers.ts';
import { StasisError } from '../errors.ts';
import { storedDefinition } from '../guests/definition.ts';
import type { ReaderRecord } from '../guests/disk-readers.ts';
import type { Host } from '../guests/host.ts';
import type { FileIdentity } from '../storage/identity.ts';
import { fromStored } from '../stored.ts';

/**
 * Every disk of a guest with all layers over its root: those of its images, and those of guests that were made from
 * them. Files are only looked at when a guest may be writing to them; of all others the seal knows the size.
 */
export async function diskTrees(host: Host, guest: GuestRecord): Promise<DiskTree[]> {
  const heads = new Map((await headsOf(host.catalog, guest.uuid)).map(({ disk, layer }) => [disk, layer]));
  return Promise.all(
    storedDefinition(guest).disks.map(async ({ name, path, format, bus, readonly, driver = 'overlay' }) => {
      const head = heads.get(name);
      const layers = head === undefined ? [] : await layersAround(host, head);
      const used = head === undefined ? null : driver;
      return { guest: guest.name, disk: name, path, format, driver: used, bus, readonly, layers };
    }),
  );
}

/** All layers of the tree that a layer is in, parents first. */
async function layersAround(host: Host, layer: LayerRecord): Promise<DiskTree['layers']> {
  const { layers } = await treesOf(host.catalog, [layer.tree]);
  const holds = Map.groupBy(await holdsOf(host.catalog, [layer.tree]), (hold) => hold.layer);
  const tops = (await host.readers.list()).map((reader) => reader.layers[0]);
  return Promise.all(
    layers.map(async (each) => {
      const { id, parent, path, format, driver, sizeBytes, identity } = each;
      const holders = holds.get(id) ?? [];
      return {
        ...{ id, parent, path, format, driver, sizeBytes },
        root: each.root === 1,
        storedBytes: identity === null ? await storedNow(host, each) : storedWhenSealed(identity),
        writers: holders.filter(({ image }) => image === null).map((holder) => holder.guest),
        images: holders.flatMap(({ guest, image }) => (image === null ? [] : [{ guest, name: image }])),
        readers: tops.filter((top) => top === id).length,
      };
    }),
  );
}

function storedWhenSealed(identity: string): number {
  return fromStored<FileIdentity>(identity).storedBytes;
}

/** null when it is not there */
async function storedNow(host: Host, layer: LayerRecord): Promise<number | null> {
  try {
    return (await host.drivers.get(layer.driver).identity(layer)).storedBytes;
  } catch (error) {
    if (error instanceof StasisError && error.code === 'disk-missing') return null;
    throw error;
  }
}

/** An image's disk that is being served, and how to get at it. */
export function exportView(host: Host, { id, guestName, image, disk, sizeBytes }: ReaderRecord): DiskExport {
  const socket = host.readers.socketOf(id);
  // https://github.com/NetworkBlockDevice/nbd/blob/master/doc/uri.md
  const uri = `nbd+unix:///?socket=${encodeURIComponent(socket).replaceAll('%2F', '/')}`;
  return { id, guest: guestName, image, disk, sizeBytes, socket, uri };
}
