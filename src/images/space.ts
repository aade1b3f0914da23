/** Does it fit? Asked before a save begins, with the numbers in the answer. */
import { statfs } from 'node:fs/promises';
import { StasisError } from '../errors.ts';

/** Room for device state, manifest and the first writes to new heads. */
const SPARE_BYTES = 64 * 1024 ** 2;

/**
 * @param memoryBytes what the memory file can occupy at most: zero pages are holes
 * @throws StasisError `no-space` when it is known not to fit
 */
export async function refuseWithoutSpace(directory: string, memoryBytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(directory);
  const freeBytes = bavail * bsize;
  const neededBytes = memoryBytes + SPARE_BYTES;
  if (neededBytes <= freeBytes) return;
  throw new StasisError(
    'no-space',
    `the save needs about ${mebibytes(neededBytes)} and ${directory} has ${mebibytes(freeBytes)} free; delete images or make room`,
    { details: { neededBytes, freeBytes, path: directory } },
  );
}

function mebibytes(bytes: number): string {
  return `${Math.ceil(bytes / 1024 ** 2)} MiB`;
}
