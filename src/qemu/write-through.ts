/**
 * Files whose writer doesn't wait until they are on the disk, made so that it does: by the attributes `S` and `D` of their
 * directory (chattr(1), ioctl_iflags(2)), which what is made in it inherits.
 */
import { open } from 'node:fs/promises';
import koffi from 'koffi';

const ioctl = koffi.load('libc.so.6').func('int ioctl(int fd, unsigned long request, ...)');

const FS_IOC_GETFLAGS = 0x80086601;
const FS_IOC_SETFLAGS = 0x40086602;
const FS_SYNC_FL = 0x8;
const FS_DIRSYNC_FL = 0x10000;

/** @returns false where the file system has no such attributes */
export async function writeThrough(directory: string): Promise<boolean> {
  await using handle = await open(directory, 'r');
  const flags = Buffer.alloc(8);
  const ask = (request: number) => Number(ioctl(handle.fd, request, 'void *', flags)) === 0;
  if (!ask(FS_IOC_GETFLAGS)) return false;
  flags.writeUInt32LE((flags.readUInt32LE() | FS_SYNC_FL | FS_DIRSYNC_FL) >>> 0);
  return ask(FS_IOC_SETFLAGS);
}
