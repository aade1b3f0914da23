/**
 * What a layer's file looked like when Stasis last let go of it. If anybody else writes to the file, or puts
 * another in its place, the next use by a guest or an image sees it: a typed error, never a silent mix of a
 * memory image with disks it doesn't belong to.
 */
import { createHash } from 'node:crypto';
import { open } from 'node:fs/promises';
import { StasisError, errnoOf } from '../errors.ts';

/** Covers the qcow2 header with its extensions and the name of the backing file; of a raw disk, the boot sector. */
const HEADER_BYTES = 4096;

export interface FileIdentity {
  readonly inode: string;
  readonly sizeBytes: string;
  readonly modifiedNs: string;
  readonly header: string;
  /** what it occupies on disk; not compared, a file system may change it by itself */
  readonly storedBytes: number;
}

const DEVICE = 'device';

/** Whether a look at it would show any write: of a block device only its first bytes are known. */
export function provesContent(identity: FileIdentity): boolean {
  return identity.modifiedNs !== DEVICE;
}

/** @throws StasisError `disk-missing` when the file isn't there or can't be read */
export async function readIdentity(path: string): Promise<FileIdentity> {
  try {
    await using file = await open(path, 'r');
    const stat = await file.stat({ bigint: true });
    const { buffer, bytesRead } = await file.read(Buffer.alloc(HEADER_BYTES), 0, HEADER_BYTES, 0);
    const header = createHash('sha256').update(buffer.subarray(0, bytesRead)).digest('base64');
    // A device has a new inode after each start of the host, and nothing tells when it was last written to.
    if (stat.isBlockDevice())
      return { inode: DEVICE, sizeBytes: DEVICE, modifiedNs: DEVICE, storedBytes: 0, header };
    return {
      inode: String(stat.ino),
      sizeBytes: String(stat.size),
      modifiedNs: String(stat.mtimeNs),
      storedBytes: Number(stat.blocks) * 512,
      header,
    };
  } catch (error) {
    const reason = errnoOf(error) === 'ENOENT' ? 'is not there' : 'can not be read';
    throw new StasisError('disk-missing', `the disk file ${path} ${reason}`, {
      cause: error,
      details: { path },
    });
  }
}

const WHAT_CHANGED = {
  inode: 'another file is in its place',
  sizeBytes: 'its size changed',
  modifiedNs: 'it was written to',
  header: 'its first bytes changed',
} as const;

/** What differs between two looks at a file, in words, or undefined when nothing does. */
export function describeChange(before: FileIdentity, now: FileIdentity): string | undefined {
  const changed = (['inode', 'sizeBytes', 'header', 'modifiedNs'] as const).find(
    (key) => before[key] !== now[key],
  );
  return changed && WHAT_CHANGED[changed];
}
