/**
 * ZFS volumes (`/dev/zvol/POOL/…/VOLUME`). Untested: written after zfs-snapshot(8), zfs-clone(8), zfs-promote(8) and
 * zfs-destroy(8) where no ZFS was; only the arguments are tested.
 *
 * A copy is a snapshot, made in the pause, and a read-only clone of it, made afterwards, so that it has a device.
 * A clone needs the snapshot that it was made of, and that belongs to its original: so before a volume goes, the
 * youngest of its clones is *promoted*, by which the snapshots become that one's. A snapshot itself goes with the
 * last clone of it (`destroy -d`).
 */
import { StasisError } from '../errors.ts';
import type { LayerFile, StorageDriver } from './driver.ts';
import { readIdentity } from './identity.ts';
import { planOverlay } from './overlay.ts';
import { failureOf, runTool } from './tool.ts';
import { outgoingName, planVolume, PREFIX, roleOf } from './volume-names.ts';

const DEVICES = '/dev/zvol/';

export const zfs: StorageDriver = {
  name: 'zfs',
  capture: 'copy',

  async whyNot({ path, format }) {
    const volume = volumeAt(path);
    if (volume === undefined) return `its path does not begin with ${DEVICES}`;
    if (format !== 'raw') return 'in a ZFS volume it can only be raw';
    try {
      await tryOut(volume);
      return undefined;
    } catch (error) {
      return failureOf(error) ?? StasisError.from(error).message;
    }
  },

  planHead: (from, place) =>
    from.driver === 'zfs' ? planVolume('zfs', from, place, 'head', besideOf(from)) : planOverlay(from, place),

  planCopy: (head, place) =>
    head.driver === 'zfs' ? planVolume('zfs', head, place, 'copy', besideOf(head)) : undefined,

  async make(layer, from, signal) {
    const snapshot = `${requireVolume(from)}@${snapshotName(layer)}`;
    await zfs.remove(layer); // of an interrupted attempt
    await runTool('zfs', ['snapshot', snapshot], signal);
    if (isHead(layer)) await clone(snapshot, layer, 'off');
  },

  async settle(layer) {
    const snapshot = isHead(layer) ? undefined : await findSnapshot(layer);
    if (snapshot !== undefined) await clone(snapshot, layer, 'on');
  },

  rehearse: (head, signal) => tryOut(requireVolume(head), signal),

  async remove(layer) {
    if (roleOf(nameOf(layer)) === undefined)
      throw new StasisError('internal', `${layer.path} is not a volume that Stasis made`);
    await destroy(requireVolume(layer));
    const snapshot = await findSnapshot(layer);
    if (snapshot !== undefined) await runTool('zfs', ['destroy', '-d', snapshot]);
  },

  async replaceRoot(layer, root, sealed) {
    const [source, target] = [requireVolume(layer), requireVolume(root)];
    const outgoing = beside(target, outgoingName(layer));
    if (await exists(source)) {
      await runTool('zfs', ['set', 'readonly=off', source]);
      if ((await originOf(source)) !== '-') await runTool('zfs', ['promote', source]);
      if (await exists(target)) await runTool('zfs', ['rename', target, outgoing]);
      await runTool('zfs', ['rename', source, target]);
    } else if (!(await exists(target)) || (await guidOf(target)) !== sealed.inode) {
      throw new StasisError('disk-missing', `the ZFS volume ${source} is not there`, {
        details: { path: layer.path },
      });
    }
    await destroy(outgoing);
  },

  canTakeIn: (layer) => roleOf(nameOf(layer)) !== 'copy',

  async identity({ path }) {
    return { ...(await readIdentity(path)), inode: await guidOf(requireVolume({ path })) };
  },
};

function volumeAt(path: string): string | undefined {
  return path.startsWith(DEVICES) ? path.slice(DEVICES.length) : undefined;
}

function requireVolume({ path }: Pick<LayerFile, 'path'>): string {
  const volume = volumeAt(path);
  if (volume === undefined) throw new StasisError('internal', `${path} names no ZFS volume`);
  return volume;
}

const nameOf = ({ path }: LayerFile) => path.slice(path.lastIndexOf('/') + 1);
const isHead = (layer: LayerFile) => roleOf(nameOf(layer)) === 'head';
const snapshotName = ({ id }: LayerFile) => `${PREFIX}-${id}`;
const beside = (volume: string, name: string) => `${volume.slice(0, volume.lastIndexOf('/'))}/${name}`;
const besideOf = (layer: LayerFile) => (name: string) => DEVICES + beside(requireVolume(layer), name);
const poolOf = (volume: string) => volume.split('/')[0] ?? volume;

/** Snapshots and their clones. -H: without headings, with tabs. */
async function list(kind: 'snapshot' | 'volume', columns: string, pool: string): Promise<string[][]> {
  const order = ['-s', 'createtxg'];
  const text = await runTool('zfs', ['list', '-H', '-t', kind, '-o', columns, ...order, '-r', pool]);
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => line.split('\t'));
}

async function findSnapshot(layer: LayerFile): Promise<string | undefined> {
  const rows = await list('snapshot', 'name', poolOf(requireVolume(layer)));
  return rows.map(([name = '']) => name).find((name) => name.endsWith(`@${snapshotName(layer)}`));
}

async function exists(volume: string): Promise<boolean> {
  return (await list('volume', 'name', poolOf(volume))).some(([name]) => name === volume);
}

async function clone(snapshot: string, layer: LayerFile, isReadonly: 'on' | 'off'): Promise<void> {
  await runTool('zfs', ['clone', '-o', `readonly=${isReadonly}`, snapshot, requireVolume(layer)]);
  await runTool('udevadm', ['settle', `--exit-if-exists=${layer.path}`]);
}

/** Nothing there is no error. Snapshots of the user's on it are one: they are not ours to remove. */
async function destroy(volume: string): Promise<void> {
  if (!(await exists(volume))) return;
  const snapshots = (await list('snapshot', 'name,clones', poolOf(volume))).filter(([name = '']) =>
    name.startsWith(`${volume}@`),
  );
  // In the order of their age: all that are older than the last one that has a clone go along with it.
  const [heir] = snapshots
    .map(([, clones = '']) => clones.split(',')[0] ?? '')
    .filter(isClone)
    .slice(-1);
  if (heir !== undefined) await runTool('zfs', ['promote', heir]);
  await runTool('zfs', ['destroy', volume]);
}

const isClone = (name: string) => name !== '' && name !== '-';

async function originOf(volume: string): Promise<string> {
  return (await runTool('zfs', ['get', '-H', '-o', 'value', 'origin', volume])).trim();
}

async function guidOf(volume: string): Promise<string> {
  return (await runTool('zfs', ['get', '-H', '-o', 'value', 'guid', volume])).trim();
}

/** @returns how long a snapshot takes, in ms */
async function tryOut(volume: string, signal?: AbortSignal): Promise<number> {
  const snapshot = `${volume}@${PREFIX}-trial`;
  const startMs = performance.now();
  await runTool('zfs', ['snapshot', snapshot], signal);
  const tookMs = performance.now() - startMs;
  await runTool('zfs', ['destroy', snapshot]);
  return tookMs;
}
