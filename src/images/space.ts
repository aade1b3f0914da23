/**
 * Does it fit? Asked before a save begins, of each file system that it would write to, with the numbers in the answer and
 * what deleting images would free there.
 */
import { stat, statfs } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { listGuests } from '../catalog/guests.ts';
import { listImages } from '../catalog/images.ts';
import { pinnedLayers } from '../catalog/layers.ts';
import { StasisError, errnoOf } from '../errors.ts';
import { guestDirectory } from '../guests/disks.ts';
import type { Host } from '../guests/host.ts';
import { imageGains } from './gains.ts';
import { manifestOf } from './load.ts';

/** What some work will write at most, and where. The directory need not be there yet. */
export interface Need {
  readonly what: string;
  readonly directory: string;
  readonly bytes: number;
}

interface FileSystem {
  readonly device: number;
  readonly directory: string;
  readonly freeBytes: number;
}

interface Relief {
  readonly guest: string;
  readonly image: string;
  readonly bytes: number;
}

/** Room for device state, manifest, picture and catalog. */
const SPARE_BYTES = 64 * 1024 ** 2;
/** An empty overlay, and the guest's first writes to it. */
const OVERLAY_BYTES = 1024 ** 2;
const RELIEFS_TOLD = 3;

/**
 * What a save needs: its memory file, which has holes for pages without content and a place of its own for each page,
 * however often it is written; and new overlays. Copies that share their blocks need next to nothing.
 * @param memoryBytes what the guest has touched: more only if it touches more meanwhile
 */
export function saveNeeds(
  host: Host,
  guest: string,
  memoryBytes: number,
  heads: readonly { readonly disk: string; readonly path: string; readonly driver: string }[],
): Need[] {
  const { images } = guestDirectory(host.paths.data, guest);
  const overlays = heads.filter(({ driver }) => driver === 'overlay');
  return [
    { what: 'memory', directory: images, bytes: memoryBytes + SPARE_BYTES },
    ...overlays.map(({ disk, path }) => ({
      what: `disk ${disk}`,
      directory: dirname(path),
      bytes: OVERLAY_BYTES,
    })),
  ];
}

/**
 * @param work what it is for, as the subject of a sentence: `the save`
 * @throws StasisError `no-space` when it is known not to fit
 */
export async function refuseWithoutSpace(host: Host, work: string, needs: readonly Need[]): Promise<void> {
  const fileSystems = new Map<number, FileSystem>();
  const needed = new Map<number, Need[]>();
  for (const need of needs) {
    const directory = await nearestExisting(need.directory);
    const { dev: device } = await stat(directory);
    const { bavail, bsize } = await statfs(directory);
    fileSystems.set(device, { device, directory, freeBytes: bavail * bsize });
    needed.set(device, [...(needed.get(device) ?? []), need]);
  }
  for (const fileSystem of fileSystems.values()) {
    const there = needed.get(fileSystem.device) ?? [];
    const neededBytes = there.reduce((sum, { bytes }) => sum + bytes, 0);
    if (neededBytes > fileSystem.freeBytes) throw await noSpace(host, work, fileSystem, there, neededBytes);
  }
}

async function noSpace(
  host: Host,
  work: string,
  fileSystem: FileSystem,
  needs: readonly Need[],
  neededBytes: number,
): Promise<StasisError> {
  const { freeBytes } = fileSystem;
  const path = await mountPoint(fileSystem);
  const wouldFree = await reliefs(host, fileSystem);
  const parts = needs.map(({ what, bytes }) => `${what} ${mebibytes(bytes)}`).join(', ');
  const cure =
    wouldFree.length === 0
      ? 'make room'
      : `make room, or delete images: ${wouldFree.map(({ guest, image, bytes }) => `${guest} / ${image} would free ${mebibytes(bytes)}`).join(', ')}`;
  return new StasisError(
    'no-space',
    `${work} needs up to ${mebibytes(neededBytes)} (${parts}) on the file system ${path}, which has ${mebibytes(freeBytes)} free; ${cure}`,
    { details: { neededBytes, freeBytes, path, needs, wouldFree } },
  );
}

/** The images whose end would free the most there, for certain. */
async function reliefs(host: Host, { device }: FileSystem): Promise<Relief[]> {
  const names = new Map((await listGuests(host.catalog)).map(({ uuid, name }) => [uuid, name]));
  const guests = [...names.keys()];
  if (guests.length === 0) return [];
  const gainOf = await imageGains(host, guests);
  const pins = Map.groupBy(await pinnedLayers(host.catalog, guests), ({ image }) => image);
  const devices = new Map<string, Promise<number>>();
  const isThere = async (directory: string) => {
    const found =
      devices.get(directory) ?? nearestExisting(directory).then(async (near) => (await stat(near)).dev);
    devices.set(directory, found);
    return (await found) === device;
  };
  const all: Relief[] = [];
  for (const image of await listImages(host.catalog)) {
    const manifest = manifestOf(image);
    const memory = join(
      guestDirectory(host.paths.data, image.guest).images,
      image.id,
      manifest.memoryFile.name,
    );
    const pinned = (pins.get(image.id) ?? []).map(({ layerId }) => layerId);
    let bytes = 0;
    for (const part of gainOf({ memory, manifest, pinned }).parts)
      if (part.certainBytes > 0 && (await isThere(part.directory))) bytes += part.certainBytes;
    if (bytes > 0) all.push({ guest: names.get(image.guest) ?? image.guest, image: image.name, bytes });
  }
  return all.toSorted((a, b) => b.bytes - a.bytes).slice(0, RELIEFS_TOLD);
}

async function nearestExisting(directory: string): Promise<string> {
  for (let path = directory; ; path = dirname(path)) {
    try {
      if ((await stat(path)).isDirectory()) return path;
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT' || path === dirname(path)) throw error;
    }
  }
}

/** The topmost directory on the same device. */
async function mountPoint({ device, directory }: FileSystem): Promise<string> {
  let path = directory;
  while (path !== dirname(path) && (await stat(dirname(path))).dev === device) path = dirname(path);
  return path;
}

function mebibytes(bytes: number): string {
  return `${Math.ceil(bytes / 1024 ** 2)} MiB`;
}
