/**
 * Images of Ceph that the kernel has mapped (`/dev/rbd/POOL/IMAGE`). Untested: written after rbd(8) where no Ceph
 * was; only the arguments are tested. Needs clones of the second version (Ceph 13.2 and later, all clients).
 *
 * A copy is a snapshot, made in the pause, and a clone of it, made afterwards and mapped read-only, so that it has a device.
 * A clone needs the image that it was made of: one that goes is moved to the pool's trash, which Ceph allows
 * while there are clones, and `rbd trash purge` frees its space when the last of them is gone.
 */
import Type, { type Static } from 'typebox';
import { StasisError } from '../errors.ts';
import type { LayerFile, StorageDriver } from './driver.ts';
import { readIdentity } from './identity.ts';
import { planOverlay } from './overlay.ts';
import { failureOf, readReport, runTool } from './tool.ts';
import { outgoingName, planVolume, PREFIX, roleOf } from './volume-names.ts';

const IMAGE = /^\/dev\/rbd\/([^/@]+)\/([^/@]+)$/;

interface ImageName {
  readonly pool: string;
  readonly name: string;
}

export const rbd: StorageDriver = {
  name: 'rbd',
  capture: 'copy',

  async whyNot({ path, format }) {
    const image = imageAt(path);
    if (image === undefined) return 'its path is not that of a mapped image, such as /dev/rbd/POOL/IMAGE';
    if (format !== 'raw') return 'in an image of Ceph it can only be raw';
    try {
      await tryOut(image);
      return undefined;
    } catch (error) {
      return failureOf(error) ?? StasisError.from(error).message;
    }
  },

  planHead: (from, place) =>
    from.driver === 'rbd' ? planVolume('rbd', from, place, 'head', besideOf(from)) : planOverlay(from, place),

  planCopy: (head, place) =>
    head.driver === 'rbd' ? planVolume('rbd', head, place, 'copy', besideOf(head)) : undefined,

  async make(layer, from, signal) {
    await rbd.remove(layer); // of an interrupted attempt
    const snapshot = `${spec(requireImage(from))}@${snapshotName(layer)}`;
    await runTool('rbd', ['snap', 'create', '--no-progress', snapshot], signal);
    if (isHead(layer)) await clone(snapshot, layer);
  },

  async settle(layer) {
    const snapshot = isHead(layer) ? undefined : await findSnapshot(layer);
    if (snapshot !== undefined) await clone(snapshot, layer);
  },

  rehearse: (head, signal) => tryOut(requireImage(head), signal),

  async remove(layer) {
    const image = requireImage(layer);
    if (roleOf(image.name) === undefined)
      throw new StasisError('internal', `${layer.path} is not an image that Stasis made`);
    await discard(image);
    const snapshot = await findSnapshot(layer);
    if (snapshot !== undefined) await runTool('rbd', ['snap', 'rm', '--no-progress', snapshot]);
  },

  async replaceRoot(layer, root, sealed) {
    const [source, target] = [requireImage(layer), requireImage(root)];
    const outgoing = { pool: target.pool, name: outgoingName(layer) };
    const images = await listImages(target.pool);
    if (images.includes(source.name)) {
      await unmap(source);
      await unmap(target);
      if (images.includes(target.name)) await runTool('rbd', ['rename', spec(target), spec(outgoing)]);
      await runTool('rbd', ['rename', spec(source), spec(target)]);
    } else if (!images.includes(target.name) || (await idOf(target)) !== sealed.inode) {
      throw new StasisError('disk-missing', `the image ${spec(source)} is not there`, {
        details: { path: layer.path },
      });
    }
    await map(target, false);
    await discard(outgoing);
  },

  canTakeIn: (layer) => roleOf(requireImage(layer).name) !== 'copy',

  async identity({ path }) {
    return { ...(await readIdentity(path)), inode: await idOf(requireImage({ path })) };
  },
};

function imageAt(path: string): ImageName | undefined {
  const [, pool, name] = IMAGE.exec(path) ?? [];
  return pool === undefined || name === undefined ? undefined : { pool, name };
}

function requireImage({ path }: Pick<LayerFile, 'path'>): ImageName {
  const image = imageAt(path);
  if (image === undefined) throw new StasisError('internal', `${path} names no image of Ceph`);
  return image;
}

const spec = ({ pool, name }: ImageName) => `${pool}/${name}`;
const deviceOf = (image: ImageName) => `/dev/rbd/${spec(image)}`;
const besideOf = (layer: LayerFile) => (name: string) => deviceOf({ pool: requireImage(layer).pool, name });
const isHead = (layer: LayerFile) => roleOf(requireImage(layer).name) === 'head';
const snapshotName = ({ id }: LayerFile) => `${PREFIX}-${id}`;

const Names = Type.Array(Type.String());
const Info = Type.Object({ id: Type.String() });
const Listed = Type.Array(Type.Object({ image: Type.String(), snapshot: Type.Optional(Type.String()) }));
const Mapped = Type.Array(Type.Object({ pool: Type.String(), name: Type.String() }));

async function json<T extends Type.TSchema>(schema: T, args: readonly string[]): Promise<Static<T>> {
  return readReport('rbd', schema, await runTool('rbd', [...args, '--format', 'json']));
}

const listImages = (pool: string) => json(Names, ['ls', pool]);

async function idOf(image: ImageName): Promise<string> {
  return (await json(Info, ['info', spec(image)])).id;
}

/** A snapshot has its layer's id in its name, but belongs to what the layer was made from. */
async function findSnapshot(layer: LayerFile): Promise<string | undefined> {
  const { pool } = requireImage(layer);
  const all = await json(Listed, ['ls', '--long', pool]);
  const found = all.find(({ snapshot }) => snapshot === snapshotName(layer));
  return found === undefined ? undefined : `${pool}/${found.image}@${snapshotName(layer)}`;
}

async function clone(snapshot: string, layer: LayerFile): Promise<void> {
  const image = requireImage(layer);
  await runTool('rbd', ['clone', '--rbd-default-clone-format', '2', snapshot, spec(image)]);
  await map(image, !isHead(layer));
}

async function map(image: ImageName, isReadonly: boolean): Promise<void> {
  if (await isMapped(image)) return;
  await runTool('rbd', ['device', 'map', ...(isReadonly ? ['--read-only'] : []), spec(image)]);
  await runTool('udevadm', ['settle', `--exit-if-exists=${deviceOf(image)}`]);
}

async function isMapped({ pool, name }: ImageName): Promise<boolean> {
  const mapped = await json(Mapped, ['device', 'list']);
  return mapped.some((each) => each.pool === pool && each.name === name);
}

async function unmap(image: ImageName): Promise<void> {
  if (await isMapped(image)) await runTool('rbd', ['device', 'unmap', spec(image)]);
}

/** Nothing there is no error. */
async function discard(image: ImageName): Promise<void> {
  if (!(await listImages(image.pool)).includes(image.name)) return;
  await unmap(image);
  await runTool('rbd', ['trash', 'mv', spec(image)]);
}

/** @returns how long a snapshot takes, in ms */
async function tryOut(image: ImageName, signal?: AbortSignal): Promise<number> {
  const snapshot = `${spec(image)}@${PREFIX}-trial`;
  const startMs = performance.now();
  await runTool('rbd', ['snap', 'create', '--no-progress', snapshot], signal);
  const tookMs = performance.now() - startMs;
  await runTool('rbd', ['snap', 'rm', '--no-progress', snapshot]);
  return tookMs;
}
