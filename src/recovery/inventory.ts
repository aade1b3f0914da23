/**
 * What a home holds, found without its catalog: record files, held against the layers, memory files and processes that
 * are there. Records may be older than what they tell of, since a daemon writes them after its commits and may die in between;
 * so nothing is taken for an image of which not all that it stands on is what it was. Nothing is changed here.
 */
import { existsSync } from 'node:fs';
import { basename, join } from 'node:path';
import { namesIn } from '../directory.ts';
import { StasisError, errnoOf } from '../errors.ts';
import { deviceId } from '../guests/command-line.ts';
import type { Definition } from '../guests/definition.ts';
import { guestDirectory, type DiskLayerId } from '../guests/disks.ts';
import type { Paths } from '../paths.ts';
import { verifyMemoryFile } from '../qemu/memory/memory-file.ts';
import { backingOf, FoundLayers, idInName, type FoundLayer, type LayerTools } from './found-layers.ts';
import { findLiving, type LivingGuest, type WrittenLayer } from './living-guests.ts';
import { findLostGuest, guestFromImages, whatIsLost, type LostGuest } from './lost-guest.ts';
import { GUEST_FILE, readGuestFile, readImageFile, type GuestFile, type ImageFile } from './record-files.ts';

export interface FoundImage {
  readonly file: ImageFile;
  readonly state: 'ready' | 'broken';
  /** why it is broken, when that was found now */
  readonly damage: string | undefined;
}

export interface FoundGuest {
  readonly file: GuestFile;
  /** the QEMU that it is */
  readonly living: LivingGuest | undefined;
  readonly instance: string | null;
  readonly tpm: string | null;
  readonly heads: readonly DiskLayerId[];
  readonly images: readonly FoundImage[];
  /** what somebody should know of it */
  readonly notes: readonly string[];
}

export interface LeftOut {
  readonly path: string;
  readonly reason: string;
}

export interface Inventory {
  readonly guests: readonly FoundGuest[];
  readonly layers: FoundLayers;
  /** ids of all layers that guests write to */
  readonly heads: ReadonlySet<string>;
  /** files and directories that come to nothing */
  readonly leftOut: readonly LeftOut[];
  /** processes that nobody's record tells of, and the like */
  readonly notes: readonly string[];
}

/** @throws StasisError `storage-failed` for a home that can't be read */
export async function takeInventory(paths: Paths, tools: LayerTools): Promise<Inventory> {
  const leftOut: LeftOut[] = [];
  const { files, lost } = await readGuests(paths, tools, leftOut);
  const layers = await FoundLayers.look(
    tools,
    files.flatMap(({ uuid, layers: entries }) => entries.map((entry) => ({ ...entry, guest: uuid }))),
    new Set(files.flatMap((file) => [...layerDirectories(paths.data, tools, file)])),
  );
  const { living, silent } = await findLiving(paths.run);
  const present: Present[] = [];
  for (const file of files) {
    const taken = new Set(present.flatMap(({ heads: others }) => others.map(({ layer }) => layer)));
    present.push(await presentOf(paths, tools, file, layers, living, taken));
  }
  const heads = new Set(present.flatMap(({ heads: own }) => own.map(({ layer }) => layer)));
  // What a guest wrote to at the time of the record it may have written to since, whatever it writes to now.
  const written = new Set([...heads, ...files.flatMap((file) => file.heads.map(({ layer }) => layer))]);
  const guests: FoundGuest[] = [];
  for (const guest of present) {
    leftOut.push(...(await strayLayers(paths, tools, guest.file, layers)));
    const notes = [...lost.filter(({ uuid }) => uuid === guest.file.uuid).map(whatIsLost), ...guest.notes];
    guests.push({ ...guest, notes, images: await imagesOf(paths, guest.file, layers, written, leftOut) });
  }
  const nobodys = living.filter(({ uuid }) => !files.some((file) => file.uuid === uuid));
  return {
    ...{ guests, layers, heads, leftOut },
    notes: [
      ...silent.map(({ instance, whyNot }) => `the QEMU in ${instance} does not answer: ${whyNot}`),
      ...nobodys.map(
        ({ instance, uuid }) =>
          `the QEMU in ${instance} is of no recorded guest (${uuid}); the next daemon ends it`,
      ),
    ],
  };
}

interface GuestFiles {
  readonly files: readonly GuestFile[];
  /** of them, those that have no record any more */
  readonly lost: readonly LostGuest[];
}

/** Of two with one name the newer one is right: the other's directory outlived it. */
async function readGuests({ data }: Paths, tools: LayerTools, leftOut: LeftOut[]): Promise<GuestFiles> {
  const found: GuestFile[] = [];
  const lost: LostGuest[] = [];
  for (const uuid of await namesIn(join(data, 'guests'))) {
    const { root } = guestDirectory(data, uuid);
    const read = await readGuestFile(root);
    if ('whyNot' in read) {
      const guest = await findLostGuest(data, uuid, read.whyNot);
      if (guest === undefined)
        leftOut.push({ path: root, reason: `${read.whyNot}, and no image tells of it` });
      else lost.push(guest);
      if (guest !== undefined && existsSync(join(root, GUEST_FILE)))
        leftOut.push({ path: join(root, GUEST_FILE), reason: read.whyNot });
    } else if (read.file.uuid !== uuid)
      leftOut.push({ path: root, reason: `its record is of ${read.file.uuid}` });
    else found.push(read.file);
  }
  // What a clone was made from comes before it.
  const beginning = ({ images }: LostGuest) =>
    `${images[0].definition.clone === undefined ? 0 : 1} ${images.at(-1)?.createdAt}`;
  for (const guest of lost.toSorted((a, b) => beginning(a).localeCompare(beginning(b))))
    found.push(
      await guestFromImages(
        data,
        tools,
        guest,
        found.flatMap(({ layers }) => layers),
      ),
    );
  const newestFirst = found.toSorted((a, b) => b.createdAt.localeCompare(a.createdAt));
  const files = newestFirst.filter((file, index) => {
    const isFirst = newestFirst.findIndex(({ name }) => name === file.name) === index;
    if (!isFirst)
      leftOut.push({
        path: guestDirectory(data, file.uuid).root,
        reason: `another guest is called ${file.name} and is newer`,
      });
    return isFirst;
  });
  return { files, lost };
}

type Present = Omit<FoundGuest, 'images'>;

/** What a guest is now: a QEMU that runs knows best. */
async function presentOf(
  { data }: Paths,
  tools: LayerTools,
  file: GuestFile,
  layers: FoundLayers,
  living: readonly LivingGuest[],
  taken: ReadonlySet<string>,
): Promise<Present> {
  const notes: string[] = [];
  const process = processOf(file, layers, living);
  const heads: DiskLayerId[] = [];
  for (const { disk, layer: recorded } of file.heads) {
    const written =
      process?.heads.get(deviceId(disk)) ?? (await successor(data, tools, file, recorded, layers));
    const head = written?.id ?? recorded;
    if (written !== undefined && layers.find(written.id) === undefined)
      await adopt(tools, file, disk, written, layers);
    const layer = layers.find(head);
    if (layer === undefined || taken.has(layer.id)) {
      const why = layer === undefined ? 'no record knows' : 'another guest has';
      notes.push(`disk ${disk}: ${why} the layer that it is written to; restore an image`);
      continue;
    }
    if (layer.problem !== undefined) notes.push(`disk ${disk}: ${layer.problem}`);
    heads.push({ disk, layer: layer.id });
  }
  const instance = process === undefined ? file.state.instance : await nameOf(data, file, process);
  const tpm = instance === file.state.instance ? file.state.tpm : instance;
  return { file, living: process, instance, tpm, heads, notes };
}

/**
 * The one that the record names; after a start or restore that was not recorded any more, the only one that there is. One that could
 * write to a sealed layer and has not was loaded and did not come to count: ended, it leaves all as the record has it, also
 * the image whose layer that may be.
 */
function processOf(
  { uuid, state }: GuestFile,
  layers: FoundLayers,
  living: readonly LivingGuest[],
): LivingGuest | undefined {
  const own = living.filter((candidate) => candidate.uuid === uuid);
  const recorded = own.find(({ instance }) => state.instance?.startsWith(instance) === true);
  if (recorded !== undefined) return recorded;
  const [only, ...others] = own.filter((candidate) => ![...candidate.heads.values()].some(isUntouched));
  return others.length === 0 ? only : undefined;

  function isUntouched({ id }: WrittenLayer): boolean {
    const layer = layers.find(id);
    return layer !== undefined && layer.seal !== null && layer.problem === undefined;
  }
}

/** A run directory has the first part of the name; a TPM's has all of it. */
async function nameOf(data: string, { uuid, state }: GuestFile, { instance }: LivingGuest): Promise<string> {
  const names = [state.instance ?? '', ...(await namesIn(join(guestDirectory(data, uuid).root, 'tpm')))];
  return names.find((name) => name.startsWith(instance)) ?? instance;
}

/**
 * A live save lays a new head over the one that its guest writes to. When neither QEMU nor the record tells whether the guest
 * was switched to it, it is what the guest is on: until it was, nothing is in it, and it reads the same.
 */
async function successor(
  data: string,
  tools: LayerTools,
  file: GuestFile,
  recorded: string,
  layers: FoundLayers,
): Promise<WrittenLayer | undefined> {
  const head = layers.find(recorded);
  if (head === undefined || head.seal !== null || head.now === undefined) return undefined;
  const found: WrittenLayer[] = [];
  for (const path of await unknownFiles(data, tools, file, layers)) {
    const id = idInName(basename(path));
    if (id === undefined || !path.endsWith('.qcow2')) continue;
    if ((await backingOf(tools, path).catch(() => undefined)) !== head.path) continue;
    found.push({ id, path, format: 'qcow2', sizeBytes: head.sizeBytes });
  }
  return found.length === 1 ? found[0] : undefined;
}

/** A layer of which no record tells yet, with those between it and the first that one tells of. */
async function adopt(
  tools: LayerTools,
  file: GuestFile,
  disk: string,
  { id, path, format, sizeBytes }: WrittenLayer,
  layers: FoundLayers,
): Promise<FoundLayer | undefined> {
  if (!layers.canBe({ id, path })) return undefined;
  const backing = format === 'qcow2' ? await backingOf(tools, path) : undefined;
  const below =
    backing === undefined ? undefined : await layerAt(tools, file, disk, backing, sizeBytes, layers);
  const tree = below?.tree ?? layers.find(file.heads.find((head) => head.disk === disk)?.layer ?? '')?.tree;
  if (tree === undefined || (backing !== undefined && below === undefined)) return undefined;
  const driver = below === undefined ? driverOf(file.definition, disk) : 'overlay';
  const layer: FoundLayer = {
    ...{ id, path, format, sizeBytes, tree, driver, root: false },
    ...{ parent: below?.id ?? null, guest: file.uuid },
    ...{ seal: null, now: await tools.drivers.get(driver).identity({ path, driver }), problem: undefined },
  };
  layers.add(layer);
  return layer;
}

async function layerAt(
  tools: LayerTools,
  file: GuestFile,
  disk: string,
  path: string,
  sizeBytes: number,
  layers: FoundLayers,
): Promise<FoundLayer | undefined> {
  const known = layers.at(path);
  const id = idInName(basename(path));
  if (known !== undefined || id === undefined) return known;
  const format = path.endsWith('.raw') ? 'raw' : 'qcow2';
  return adopt(tools, file, disk, { id, path, format, sizeBytes }, layers);
}

function driverOf({ disks }: Definition, disk: string) {
  return disks.find(({ name }) => name === disk)?.driver ?? 'overlay';
}

/** Where a guest's layers are made that are files. */
function layerDirectories(
  data: string,
  { drivers }: LayerTools,
  { uuid, definition }: GuestFile,
): ReadonlySet<string> {
  const own = guestDirectory(data, uuid).layers;
  const directories = definition.disks.map(
    ({ name, path }) => drivers.get(driverOf(definition, name)).layerDirectory?.(path, uuid) ?? own,
  );
  return new Set([own, ...directories]);
}

/** Files where a guest's layers are that no record tells of. What drivers made that is no file is not looked for. */
async function unknownFiles(
  data: string,
  tools: LayerTools,
  file: GuestFile,
  layers: FoundLayers,
): Promise<string[]> {
  const files = [];
  for (const directory of layerDirectories(data, tools, file))
    for (const name of await namesIn(directory)) files.push(join(directory, name));
  return files.filter((path) => layers.at(path) === undefined);
}

async function strayLayers(
  { data }: Paths,
  tools: LayerTools,
  file: GuestFile,
  layers: FoundLayers,
): Promise<LeftOut[]> {
  const paths = await unknownFiles(data, tools, file, layers);
  return paths.map((path) => ({
    path,
    reason: 'a layer that no record tells of, or that stands on such a one',
  }));
}

/** Newest first: of two with one name the newer one took the place of the other. */
async function imagesOf(
  { data }: Paths,
  guest: GuestFile,
  layers: FoundLayers,
  written: ReadonlySet<string>,
  leftOut: LeftOut[],
): Promise<FoundImage[]> {
  const { images: root } = guestDirectory(data, guest.uuid);
  const files: ImageFile[] = [];
  for (const id of await namesIn(root)) {
    const path = join(root, id);
    const read = await readImageFile(path);
    if ('whyNot' in read) leftOut.push({ path, reason: `${read.whyNot}: a save or a delete was under way` });
    else if (read.file.id !== id || read.file.guest.uuid !== guest.uuid)
      leftOut.push({ path, reason: 'its manifest is of another image' });
    else files.push(read.file);
  }
  const images: FoundImage[] = [];
  for (const file of files.toSorted((a, b) => b.createdAt.localeCompare(a.createdAt))) {
    const path = join(root, file.id);
    if (images.some((image) => image.file.name === file.name))
      leftOut.push({ path, reason: `a newer image is called ${file.name}` });
    else images.push(await judge(path, file, layers, written));
  }
  return images.toReversed();
}

async function judge(
  directory: string,
  file: ImageFile,
  layers: FoundLayers,
  written: ReadonlySet<string>,
): Promise<FoundImage> {
  const damage = (await whyNotMemory(directory, file)) ?? whyNotDisks(file, layers, written);
  return { file, state: damage === undefined ? file.record.state : 'broken', damage };
}

async function whyNotMemory(
  directory: string,
  { memoryFile, memoryBytes, definition: { machine: machineType } }: ImageFile,
): Promise<string | undefined> {
  try {
    const { name, offset } = memoryFile;
    await verifyMemoryFile(join(directory, basename(name)), { offset, machineType, memoryBytes });
    return undefined;
  } catch (error) {
    return errnoOf(error) === 'ENOENT' ? 'its memory file is not there' : StasisError.from(error).message;
  }
}

function whyNotDisks(
  { disks, definition }: ImageFile,
  layers: FoundLayers,
  written: ReadonlySet<string>,
): string | undefined {
  const missing = definition.disks.find(
    (disk) => disk.driver !== undefined && !disks.some(({ name }) => name === disk.name),
  );
  if (missing !== undefined) return `its manifest tells nothing of disk ${missing.name}`;
  for (const { name, layer } of disks) {
    const damage = layers.whyNot(layer.id, written);
    if (damage !== undefined) return `disk ${name}: ${damage}`;
  }
  return undefined;
}
