/**
 * Copies of files that share their blocks, on file systems that can: XFS, Btrfs, bcachefs, ZFS from 2.2 on. Each layer is
 * a file of its own, raw or qcow2 as the user's; nothing stands on anything and nothing is ever merged. FICLONE of
 * ioctl_ficlonerange(2), by libuv: the whole file or an error, never a copy of bytes.
 *
 * A clone costs nothing for the size of a disk, but something for each extent of its file: a file that was written in
 * many small pieces may take seconds. So it is measured before each capture. It is also what makes files so: every
 * piece that the guest writes after a clone goes to a new place.
 *
 * Blocks are shared within one file system only, so the layers are beside the user's disk, in `.stasis/UUID OF THE
 * GUEST`, not in the home of Stasis.
 */
import { constants, chmod, chown, copyFile, open, rename, rm, rmdir, stat } from 'node:fs/promises';
import { dirname, isAbsolute, join } from 'node:path';
import { errnoOf, messageOf, StasisError } from '../errors.ts';
import { newId } from '../ids.ts';
import type { ImageTool } from '../qemu/block/image-tool.ts';
import type { LayerFile, Place, PlannedLayer, StorageDriver, UserDisk } from './driver.ts';
import { makeDirectory, syncFile } from './durable.ts';
import { describeChange, readIdentity } from './identity.ts';
import { planOverlay } from './overlay.ts';

/** Beside the user's disk, a directory for each guest in it. */
export const COPIES_DIRECTORY = '.stasis';
/** A file without a name, which is gone when it is closed: open(2). Node has no name for it. */
const O_TMPFILE = 0o20_000_000 | constants.O_DIRECTORY;

export function reflink(tool: ImageTool): StorageDriver {
  return {
    name: 'reflink',
    capture: 'copy',

    async whyNot(disk) {
      try {
        if (!(await stat(disk.path)).isFile()) return 'it is no file';
        return (await whatElseItNeeds(tool, disk)) ?? (await tryClone(disk.path));
      } catch (error) {
        return messageOf(error);
      }
    },

    layerDirectory: (root, guest) => join(dirname(root), COPIES_DIRECTORY, guest),
    planHead: (from, place) => planClone(from, place) ?? planOverlay(from, place),
    planCopy: planClone,

    async make(layer, from) {
      await makeDirectory(dirname(layer.path));
      await rm(layer.path, { force: true });
      await clone(from.path, layer.path);
    },

    async rehearse(head) {
      await using nameless = await open(dirname(head.path), O_TMPFILE | constants.O_RDWR, 0o600);
      const begin = performance.now();
      await clone(head.path, `/proc/self/fd/${nameless.fd}`);
      return performance.now() - begin;
    },

    settle: ({ path }) => syncFile(path),
    remove: ({ path }) => rm(path, { force: true }),
    canTakeIn: () => true,
    identity: ({ path }) => readIdentity(path),

    async replaceRoot(layer, root, sealed) {
      // The file itself moves, so its seal goes with it.
      if (describeChange(sealed, await readIdentity(root.path)) === undefined) return;
      const change = describeChange(sealed, await readIdentity(layer.path));
      if (change !== undefined)
        throw new StasisError('disk-changed', `somebody else changed ${layer.path} (${change})`, {
          details: { path: layer.path, change },
        });
      await likeTheOther(layer.path, root.path);
      await syncFile(layer.path);
      await rename(layer.path, root.path);
      await syncFile(root.path);
    },

    async leave({ directory }) {
      await rm(directory, { recursive: true, force: true });
      await removeIfEmpty(dirname(directory));
    },
  };
}

/** A copy, when what it is made from lies where it will lie: layers of the time of another driver do not. */
function planClone(from: LayerFile, place: Place): PlannedLayer | undefined {
  if (from.path !== place.root && dirname(dirname(from.path)) !== dirname(place.directory)) return undefined;
  const id = newId();
  const { format, sizeBytes, parent } = from;
  const path = join(place.directory, `${place.disk}-${id}.${format}`);
  return { id, disk: place.disk, path, format, sizeBytes, parent, from: from.id, driver: 'reflink' };
}

/** A copy of a file is no copy of the disk when part of it is elsewhere, or is found by where the file is. */
async function whatElseItNeeds(tool: ImageTool, { path, format }: UserDisk): Promise<string | undefined> {
  if (format !== 'qcow2') return undefined;
  const info = await tool.info(path, { format });
  if (info['format-specific']?.data['data-file'] !== undefined) return 'its data is in another file';
  const backing = info['backing-filename'];
  if (backing === undefined || isAbsolute(backing) || /^[a-z-]+:/.test(backing)) return undefined;
  return `it names what it stands on by a path relative to itself (${backing})`;
}

/** Clones a file as it would be for a save. @returns why it can't be */
async function tryClone(path: string): Promise<string | undefined> {
  try {
    await using nameless = await open(dirname(path), O_TMPFILE | constants.O_RDWR, 0o600);
    await copyFile(path, `/proc/self/fd/${nameless.fd}`, constants.COPYFILE_FICLONE_FORCE);
    return undefined;
  } catch (error) {
    const errno = errnoOf(error) ?? messageOf(error);
    if (errno === 'EACCES' || errno === 'EPERM' || errno === 'EROFS')
      return `its copies would have to lie beside it, and ${dirname(path)} can't be written to (${errno})`;
    return `its file system can't share blocks between files (${errno})`;
  }
}

async function clone(from: string, to: string): Promise<void> {
  try {
    await copyFile(from, to, constants.COPYFILE_FICLONE_FORCE);
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === 'ENOENT')
      throw new StasisError('disk-missing', `the disk file ${from} is not there`, {
        cause: error,
        details: { path: from },
      });
    throw new StasisError(
      errno === 'ENOSPC' || errno === 'EDQUOT' ? 'no-space' : 'storage-failed',
      `${from} could not be copied by sharing its blocks: ${errno ?? messageOf(error)}`,
      { cause: error, details: { from, to } },
    );
  }
}

/** Whoever could use the user's file shall find it the same. */
async function likeTheOther(path: string, other: string): Promise<void> {
  const [own, wanted] = [await stat(path), await stat(other)];
  if (own.uid !== wanted.uid || own.gid !== wanted.gid) await chown(path, wanted.uid, wanted.gid);
  await chmod(path, wanted.mode & 0o7777);
}

async function removeIfEmpty(directory: string): Promise<void> {
  try {
    await rmdir(directory);
  } catch (error) {
    const errno = errnoOf(error);
    if (errno !== 'ENOTEMPTY' && errno !== 'ENOENT') throw error;
  }
}
