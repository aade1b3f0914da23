/** Does it fit? Asked before a save begins, with the numbers in the answer. */
import { readFile, statfs } from 'node:fs/promises';
import { StasisError } from '../errors.ts';

/** Room for device state, manifest and the first writes to new heads. */
const SPARE_BYTES = 64 * 1024 ** 2;
const PAGE_BYTES = 4096;

/**
 * @param pid the guest's process: what it has in memory is the most that its memory file can occupy, zero pages are holes
 * @throws StasisError `no-space` when it is known not to fit
 */
export async function refuseWithoutSpace(directory: string, pid: number, memoryBytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(directory);
  const freeBytes = bavail * bsize;
  const neededBytes = Math.min(memoryBytes, await residentBytes(pid)) + SPARE_BYTES;
  if (neededBytes <= freeBytes) return;
  throw new StasisError(
    'no-space',
    `the save needs about ${mebibytes(neededBytes)} and ${directory} has ${mebibytes(freeBytes)} free; delete images or make room`,
    { details: { neededBytes, freeBytes, path: directory } },
  );
}

/** Memory that a process occupies, from `/proc/PID/statm` (second field, pages). */
async function residentBytes(pid: number): Promise<number> {
  const fields = (await readFile(`/proc/${pid}/statm`, 'utf8')).split(' ');
  return Number(fields[1]) * PAGE_BYTES;
}

function mebibytes(bytes: number): string {
  return `${Math.ceil(bytes / 1024 ** 2)} MiB`;
}
