/**
 * Directories in which QEMU, or its TPM, makes files: the run directory, where we do too, for one. What we write goes through nobody's link, and
 * what we trust is our own: a QEMU that was broken out of could have put something else under that name.
 */
import { constants } from 'node:fs';
import { chmod, chown, open, readdir, rename, rm, rmdir, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { errnoOf, StasisError } from '../../errors.ts';

/** A file that is there whole or not at all. */
export async function writeOwnFile(path: string, text: string): Promise<void> {
  const draft = `${path}.new`;
  await rm(draft, { force: true });
  const isNew = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL;
  await using file = await open(draft, isNew, 0o600);
  await file.writeFile(text);
  await rename(draft, path);
}

/** @returns `undefined` when it isn't there, or somebody else's */
export async function readOwnFile(path: string): Promise<string | undefined> {
  try {
    await using file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    const { uid } = await file.stat();
    return uid === process.geteuid?.() ? await file.readFile('utf8') : undefined;
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ELOOP') return undefined;
    throw error;
  }
}

/**
 * What QEMU was asked to write.
 * @throws StasisError `qemu-failed` when it is no plain file, or larger than that; the system's error when it isn't there
 */
export async function readQemusFile(path: string, maxBytes: number): Promise<Buffer> {
  await using file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  const found = await file.stat();
  if (!found.isFile() || found.size > maxBytes)
    throw new StasisError('qemu-failed', `${path} is no file of at most ${maxBytes} bytes`);
  return file.readFile();
}

/**
 * Removes such a directory, once it is nobody's but ours. QEMU makes no directories: one that is in it is removed when it is
 * empty, and never gone into, since while we do it could become a link to another. Then both stay. Nothing there is no error.
 */
export async function removeShared(directory: string): Promise<void> {
  await unless(['ENOENT'], async () => {
    await chown(directory, process.geteuid?.() ?? 0, process.getegid?.() ?? 0);
    await chmod(directory, 0o700);
    for (const entry of await readdir(directory, { withFileTypes: true })) {
      const path = join(directory, entry.name);
      if (entry.isDirectory()) await unless(['ENOTEMPTY'], () => rmdir(path));
      else await unless(['ENOENT'], () => unlink(path));
    }
    await unless(['ENOTEMPTY'], () => rmdir(directory));
  });
}

async function unless(errnos: readonly string[], work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    if (!errnos.includes(errnoOf(error) ?? '')) throw error;
  }
}
