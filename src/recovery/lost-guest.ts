/**
 * A guest whose own record is lost, as its images tell of it: which machine it was, and which layers they pin. What it is written to
 * is what was made for it and no image holds. Nothing has a seal, so the files are taken as they are: what an image holds is
 * what it was when it was saved, for before Stasis changes any of it, the image's directory is gone.
 */
import { basename, join } from 'node:path';
import { namesIn } from '../directory.ts';
import type { Definition } from '../guests/definition.ts';
import { guestDirectory, type DiskLayerId } from '../guests/disks.ts';
import { idInName, type LayerTools } from './found-layers.ts';
import { readImageFile, type GuestFile, type ImageFile, type LayerEntry } from './record-files.ts';
import { TracedLayers } from './traced-layers.ts';

/** A directory of a guest without a record that can be read. */
export interface LostGuest {
  readonly uuid: string;
  readonly whyNot: string;
  /** the newest first, at least one */
  readonly images: readonly [ImageFile, ...ImageFile[]];
}

/** @returns undefined when no image tells of it either */
export async function findLostGuest(
  data: string,
  uuid: string,
  whyNot: string,
): Promise<LostGuest | undefined> {
  const { images: root } = guestDirectory(data, uuid);
  const read = await Promise.all((await namesIn(root)).map((id) => readImageFile(join(root, id))));
  const [newest, ...older] = read
    .flatMap((each) => ('file' in each && each.file.guest.uuid === uuid ? [each.file] : []))
    .toSorted((a, b) => b.createdAt.localeCompare(a.createdAt));
  return newest && { uuid, whyNot, images: [newest, ...older] };
}

/** @param others layers that records tell of: a clone's stand on them */
export async function guestFromImages(
  data: string,
  tools: LayerTools,
  { uuid, images }: LostGuest,
  others: readonly LayerEntry[],
): Promise<GuestFile> {
  const [newest] = images;
  const { definition, guest } = newest;
  const layers = await TracedLayers.from(tools, definition, images, others);
  const heads: DiskLayerId[] = [];
  for (const { name: disk } of newest.disks) {
    const layer = await headOf(data, tools, newest, disk, layers);
    heads.push({ disk, layer: layer ?? UNKNOWN });
  }
  const [tpm = null] = await namesIn(join(guestDirectory(data, uuid).root, 'tpm'));
  return {
    ...{ format: 1, version: 1, uuid, name: guest.name, definition },
    createdAt: images.at(-1)?.createdAt ?? newest.createdAt,
    state: { instance: null, crashed: false, frozen: false, tpm, currentImage: null },
    ...{ heads, layers: await layers.sealed(), schedules: [], retention: null },
  };
}

/** What somebody should know of a guest that was made from its images. */
export function whatIsLost({ whyNot, images: [newest] }: LostGuest): string {
  return (
    `${whyNot}: it is again as its newest image has it (${newest.name}, ${newest.createdAt}). Lost are its schedules, its rules of ` +
    'retention, what was set since (policy, labels, QEMU), and whether anybody else has changed its disks: `stasis verify` compares ' +
    'what they hold, where it was summed up before'
  );
}

/** The id of no layer. */
const UNKNOWN = '';

/** Undefined when several layers could be it, or none. */
async function headOf(
  data: string,
  tools: LayerTools,
  { definition, live, disks }: ImageFile,
  disk: string,
  layers: TracedLayers,
): Promise<string | undefined> {
  const made = await madeFor(data, tools, definition, disk, layers);
  if (made === undefined) return undefined;
  const traced: LayerEntry[] = [];
  for (const path of made) traced.push(await layers.trace(disk, path));
  const free = traced.filter((entry) => layers.isFree(entry));
  const [only, ...others] = free.length > 0 ? free : layers.of(disk).filter((entry) => layers.isFree(entry));
  if (others.length > 0) {
    for (const entry of free) layers.forget(entry); // then they are kept aside
    return undefined;
  }
  // With none, the guest has stopped with its newest image: whatever it did since would have made one.
  const pinned = disks.find(({ name }) => name === disk);
  return only?.id ?? (live ? undefined : pinned?.layer.id);
}

/** Paths of what was made for a disk to be written to, or for an image; undefined where that can't be found out. */
async function madeFor(
  data: string,
  { drivers }: LayerTools,
  { uuid, disks }: Definition,
  disk: string,
  layers: TracedLayers,
): Promise<string[] | undefined> {
  const { path: root = '', driver: name = 'overlay' } =
    disks.find((candidate) => candidate.name === disk) ?? {};
  const driver = drivers.get(name);
  const own = guestDirectory(data, uuid).layers;
  const elsewhere = driver.layerDirectory?.(root, uuid);
  if (driver.capture === 'copy' && elsewhere === undefined && driver.headsFor === undefined) return undefined;
  const files: string[] = [];
  for (const directory of new Set([own, elsewhere ?? own]))
    for (const file of await namesIn(directory)) files.push(join(directory, file));
  const ofDisk = files.filter((path) => idInName(path) !== undefined && diskInName(path) === disk);
  const copies = layers.of(disk).filter((entry) => entry.driver === name);
  return [...ofDisk, ...((await driver.headsFor?.(uuid, copies)) ?? [])];
}

function diskInName(path: string): string {
  const name = basename(path);
  return name.slice(0, name.lastIndexOf('-'));
}
