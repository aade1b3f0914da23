/**
 * LVM's logical volumes. A capture is a snapshot of the volume that the guest writes to:
 *
 *  - of a *thin* volume a thin snapshot: it shares all blocks, costs nothing to make whatever the size, never overflows by
 *    itself, and a writable snapshot of it is the next head. What must not happen is that the pool fills up, so a
 *    save into one that nearly is is refused.
 *  - of a *plain* volume a classic snapshot: whatever its origin changes is first copied to an area set aside for it
 *    (`snapshotSize` in the definition; without it such a disk has overlays). When the area is full the snapshot is lost:
 *    LVM says so, and the image is broken from then on. No snapshot can be made of a classic snapshot, and writing to it
 *    fills its area twice as fast: what is restored from it is an overlay that reads through to it. Copying it
 *    instead would take the time and the room of the whole disk.
 *
 * Snapshots are volumes of the same group, called `stasis-ROLE-GUEST-LAYER` and tagged `stasis`: `lvs @stasis` lists them.
 */
import { StasisError } from '../errors.ts';
import type { LayerFile, StorageDriver, UserDisk } from './driver.ts';
import { readIdentity } from './identity.ts';
import {
  activate,
  addTags,
  createSnapshot,
  createThinSnapshot,
  deviceOf,
  findVolume,
  isTaken,
  listVolumes,
  makeWritable,
  mergeSnapshot,
  removeTag,
  removeVolume,
  renameVolume,
  requireVolumeName,
  volumeAt,
  type Volume,
  type VolumeName,
} from './lvm-volumes.ts';
import { planOverlay } from './overlay.ts';
import { failureOf } from './tool.ts';
import { bare, outgoingName, planVolume, PREFIX, roleOf } from './volume-names.ts';

const TAG = PREFIX;

/** A pool with less free than this share, or than this many bytes if that is less, is nearly full. */
const SPARE_SHARE = 0.05;
const SPARE_DATA_BYTES = 1024 ** 3;
const SPARE_METADATA_BYTES = 16 * 1024 ** 2;

export const lvm: StorageDriver = {
  name: 'lvm',
  capture: 'copy',

  async whyNot(disk) {
    const name = volumeAt(disk.path);
    if (name === undefined) return 'its path is not that of a logical volume, such as /dev/GROUP/VOLUME';
    if (disk.format !== 'raw') return 'in a logical volume it can only be raw';
    try {
      const volume = await findVolume(name);
      if (volume === undefined) return 'LVM knows no such volume';
      const reason = whyNoSnapshots(volume, disk);
      if (reason === undefined) await tryOut(volume, disk.reserveBytes);
      return reason;
    } catch (error) {
      return failureOf(error) ?? StasisError.from(error).message;
    }
  },

  async planHead(from, place) {
    const volume = await volumeOf(from);
    return volume?.kind === 'thin'
      ? planVolume('lvm', from, place, 'head', inGroupOf(volume))
      : planOverlay(from, place);
  },

  async planCopy(head, place) {
    const { reserveBytes } = place;
    const volume = await volumeOf(head);
    if (volume === undefined || whyNoSnapshots(volume, place) !== undefined) return undefined;
    await refuseWithoutRoom(volume, reserveBytes);
    return volume.kind === 'thin' || reserveBytes === undefined
      ? planVolume('lvm', head, place, 'copy', inGroupOf(volume))
      : { ...planVolume('lvm', head, place, 'snap', inGroupOf(volume)), reserveBytes };
  },

  async make(layer, from, signal) {
    const { group, name } = requireVolumeName(layer.path);
    const snapshot = { of: requireVolumeName(from.path), name, tags: [TAG, layerTag(layer)] };
    const { reserveBytes: areaBytes } = layer;
    await replacing({ group, name }, () =>
      areaBytes === undefined
        ? createThinSnapshot({ ...snapshot, as: roleOf(name) === 'head' ? 'head' : 'image' }, signal)
        : createSnapshot({ ...snapshot, areaBytes }, signal),
    );
  },

  /** What LVM has done survives a power cut. Only its device is still missing, which was no work for a pause. */
  async settle({ path }) {
    const volume = requireVolumeName(path);
    if (roleOf(volume.name) === 'copy') await activate(volume);
  },

  async rehearse(head, signal, reserveBytes) {
    return tryOut(await requireVolume(head.path), reserveBytes, signal);
  },

  async remove({ path }) {
    const volume = requireVolumeName(path);
    if (roleOf(volume.name) === undefined)
      throw new StasisError('internal', `${path} is not a volume that Stasis made`);
    await removeVolume(volume);
  },

  async whyNotReplace(layer) {
    const { group, name } = requireVolumeName(layer.path);
    if (roleOf(name) !== 'snap') return undefined;
    // What is written to the origin meanwhile goes into the areas of all other snapshots.
    const volumes = await listVolumes(group);
    const origin = volumes.find((volume) => volume.name === name)?.origin;
    const others = volumes.filter((volume) => volume.name !== name && volume.origin === origin);
    return others.length > 0 ? `other snapshots of ${group}/${origin} would overflow` : undefined;
  },

  async replaceRoot(layer, root) {
    const from = requireVolumeName(layer.path);
    const into = requireVolumeName(root.path);
    const [source, target] = [await findVolume(from), await findVolume(into)];
    // The volume that took the place of the root brought its tags along.
    const isDone = target?.tags.includes(layerTag(layer)) === true && source === undefined;
    if (source === undefined && !isDone) throw missing(layer.path);
    if (source !== undefined)
      await (source.kind === 'snapshot'
        ? mergeInto(source, into, layer)
        : takePlace(source, into, target, layer));
    await removeVolume({ group: into.group, name: outgoingName(layer) });
    await removeTag(into, TAG);
  },

  /** Not into what must not change by itself: a read-only snapshot, an area that is full in no time. */
  canTakeIn({ path }) {
    const role = roleOf(requireVolumeName(path).name);
    return role === undefined || role === 'head';
  },

  async identity({ path }) {
    const volume = await requireVolume(path);
    if (volume.isLost) {
      throw new StasisError(
        'disk-changed',
        `the area of the snapshot ${path} was too small for what its origin changed since, and its content is lost; a larger snapshotSize makes that less likely`,
        { details: { path, change: 'the snapshot overflowed' } },
      );
    }
    return { ...(await readIdentity(path)), inode: await lastingId(volume) };
  },

  async lost(layers) {
    const lost = (await volumesBeside(layers)).filter(({ isLost }) => isLost).map(deviceOf);
    return layers.filter((layer) => lost.includes(deviceName(layer))).map(({ id }) => id);
  },

  async headsFor(guest, layers) {
    const devices = new Set(layers.map(deviceName));
    return (await volumesBeside(layers))
      .filter((volume) => roleOf(volume.name) === 'head' && isMadeFor(volume, guest, devices))
      .filter(({ group, origin }) => origin !== null && devices.has(deviceOf({ group, name: origin })))
      .map(deviceOf);
  },

  async removeStrays(guest, known) {
    const devices = new Set(known.map(deviceName));
    const strays = (await volumesBeside(known)).filter(
      (volume) =>
        volume.tags.includes(TAG) && !devices.has(deviceOf(volume)) && isMadeFor(volume, guest, devices),
    );
    for (const stray of strays) await removeVolume(stray);
    return strays.map(deviceOf);
  },
};

/** All volumes of the groups that layers are in. */
async function volumesBeside(layers: readonly LayerFile[]): Promise<Volume[]> {
  const groups = new Set(layers.map(({ path }) => requireVolumeName(path).group));
  return (await Promise.all([...groups].map(listVolumes))).flat();
}

/** The one name of a layer's device, by which names of the user's choice can be compared. */
function deviceName({ path }: LayerFile): string {
  return deviceOf(requireVolumeName(path));
}

/** Was it made for this guest, or to try one of these devices out? */
function isMadeFor({ group, name, origin }: Volume, guest: string, devices: ReadonlySet<string>): boolean {
  if (name.startsWith(TRIAL)) return origin !== null && devices.has(deviceOf({ group, name: origin }));
  return name.includes(`-${bare(guest)}-`);
}

/** The volume of a layer, if it is one. @throws StasisError `disk-missing` */
async function volumeOf(layer: LayerFile): Promise<Volume | undefined> {
  return layer.driver === 'lvm' ? requireVolume(layer.path) : undefined;
}

async function requireVolume(path: string): Promise<Volume> {
  const volume = await findVolume(requireVolumeName(path));
  if (volume === undefined) throw missing(path);
  return volume;
}

function whyNoSnapshots(
  { kind }: Volume,
  { reserveBytes }: Pick<UserDisk, 'reserveBytes'>,
): string | undefined {
  if (kind === 'thin') return undefined;
  if (kind !== 'plain') return 'LVM makes no snapshots of such a volume that last';
  return reserveBytes === undefined
    ? 'it is no thin volume: snapshots of it need an area set aside, given as snapshotSize'
    : undefined;
}

const inGroupOf =
  ({ group }: Volume) =>
  (name: string) =>
    deviceOf({ group, name });

const layerTag = ({ id }: { readonly id: string }) => `${TAG}-layer-${id}`;
const TRIAL = `${TAG}-trial-`;

/** Makes a volume in the place of what an interrupted attempt left under its name. */
async function replacing(volume: VolumeName, make: () => Promise<void>): Promise<void> {
  try {
    await make();
  } catch (error) {
    if (!isTaken(error)) throw error;
    await removeVolume(volume);
    await make();
  }
}

/** Makes a snapshot as a capture would, and removes it. @returns how long it took to make, in ms */
async function tryOut(volume: Volume, areaBytes: number | undefined, signal?: AbortSignal): Promise<number> {
  const trial = { group: volume.group, name: `${TRIAL}${bare(volume.uuid)}` };
  const snapshot = { of: volume, name: trial.name, tags: [TAG] };
  let madeMs = 0;
  try {
    await replacing(trial, async () => {
      const startMs = performance.now();
      await (volume.kind === 'thin' || areaBytes === undefined
        ? createThinSnapshot({ ...snapshot, as: 'image' }, signal)
        : createSnapshot({ ...snapshot, areaBytes }, signal));
      madeMs = performance.now() - startMs;
    });
  } finally {
    await removeVolume(trial);
  }
  return madeMs;
}

/** @throws StasisError `no-space` with the numbers: a full pool stops every guest on it, a full group has no area to give */
async function refuseWithoutRoom(volume: Volume, areaBytes = 0): Promise<void> {
  if (volume.kind === 'thin') {
    const pool = await findVolume({ group: volume.group, name: volume.pool ?? '' });
    if (pool !== undefined) refuseFullPool(pool);
  } else if (volume.groupFreeBytes < Math.min(areaBytes, volume.sizeBytes)) {
    throw noSpace(
      `volume group ${volume.group}`,
      volume.groupFreeBytes,
      areaBytes,
      'extend it, or delete images',
    );
  }
}

function refuseFullPool(pool: Volume): void {
  const name = `thin pool ${pool.group}/${pool.name}`;
  const parts = [
    { what: name, sizeBytes: pool.sizeBytes, used: pool.used, spareBytes: SPARE_DATA_BYTES },
    {
      what: `the metadata of ${name}`,
      sizeBytes: pool.metadataBytes,
      used: pool.metadataUsed,
      spareBytes: SPARE_METADATA_BYTES,
    },
  ];
  for (const { what, sizeBytes, used, spareBytes } of parts) {
    const freeBytes = Math.floor(sizeBytes * (1 - (used ?? 0)));
    const neededBytes = Math.ceil(Math.min(sizeBytes * SPARE_SHARE, spareBytes));
    if (freeBytes < neededBytes)
      throw noSpace(
        what,
        freeBytes,
        neededBytes,
        'when it is full every guest on it stands still. Extend it (lvextend), or delete images',
      );
  }
}

function noSpace(what: string, freeBytes: number, neededBytes: number, cure: string): StasisError {
  const mebibytes = (bytes: number) => `${Math.floor(bytes / 1024 ** 2)} MiB`;
  return new StasisError(
    'no-space',
    `${what} has ${mebibytes(freeBytes)} free of the ${mebibytes(neededBytes)} that a save wants: ${cure}`,
    { details: { freeBytes, neededBytes } },
  );
}

/**
 * The root's name goes over to `source`. In between nothing has that name; the next attempt finds `source` then, and goes
 * on. What the user had tagged the root with goes along.
 */
async function takePlace(
  source: Volume,
  into: VolumeName,
  target: Volume | undefined,
  layer: LayerFile,
): Promise<void> {
  if (!source.isWritable) await makeWritable(source);
  if (target !== undefined) {
    await addTags(
      source,
      target.tags.filter((tag) => !tag.startsWith(TAG)),
    );
    await renameVolume(into, outgoingName(layer));
  }
  await renameVolume(source, into.name);
}

/** LVM copies what differs back into the origin, which reads right from the first moment on. */
async function mergeInto(source: Volume, into: VolumeName, layer: LayerFile): Promise<void> {
  await addTags(into, [layerTag(layer)]);
  await mergeSnapshot(source);
}

/** What stays the same when a volume is renamed, or a classic snapshot becomes its origin. */
async function lastingId({ group, uuid, kind, origin }: Volume): Promise<string> {
  if (kind !== 'snapshot' || origin === null) return uuid;
  return (await findVolume({ group, name: origin }))?.uuid ?? uuid;
}

function missing(path: string): StasisError {
  return new StasisError('disk-missing', `the logical volume ${path} is not there`, { details: { path } });
}
