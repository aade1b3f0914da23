/**
 * Holes in files: the two system calls for them that Node lacks. A hole reads as zeros and occupies nothing.
 * Linux only: lseek(2) with SEEK_DATA and SEEK_HOLE, fallocate(2) with FALLOC_FL_PUNCH_HOLE.
 */
import type { FileHandle } from 'node:fs/promises';
import { setImmediate as otherWork } from 'node:timers/promises';
import { getSystemErrorName } from 'node:util';
import koffi from 'koffi';
import { StasisError } from '../../errors.ts';

const libc = koffi.load('libc.so.6');
const lseek = libc.func('int64_t lseek64(int fd, int64_t offset, int whence)');
const fallocate = libc.func('int fallocate64(int fd, int mode, int64_t offset, int64_t length)');

const SEEK_END = 2;
const SEEK_DATA = 3;
const SEEK_HOLE = 4;
const FALLOC_FL_KEEP_SIZE = 1;
const FALLOC_FL_PUNCH_HOLE = 2;

/** The calls take microseconds each; after so many the event loop gets its turn. */
const CALLS_PER_TURN = 64;
const ZEROS_BYTES = 1 << 20;

export interface Extent {
  readonly start: number;
  readonly end: number;
}

/**
 * The parts of a file, between two offsets, that are no holes. In whole blocks of the file system: what is outside
 * of them reads as zeros, what is inside may too.
 * @throws StasisError `storage-failed`
 */
export async function* dataExtents(file: FileHandle, from: number, to: number): AsyncGenerator<Extent> {
  let calls = 0;
  for (let position = from; position < to;) {
    if ((calls += 1) % CALLS_PER_TURN === 0) await otherWork();
    const start = seek(file, position, SEEK_DATA);
    if (start === undefined || start >= to) return;
    const end = Math.min(seek(file, start, SEEK_HOLE) ?? to, to);
    yield { start, end };
    position = end;
  }
}

/**
 * Makes holes of parts of a file; its size stays. Where the file system has no holes, zeros are written instead.
 * @returns how many bytes are zero now
 * @throws StasisError `storage-failed`
 */
export async function punchHoles(
  file: FileHandle,
  parts: AsyncIterable<Extent> | Iterable<Extent>,
): Promise<number> {
  let calls = 0;
  let punchedBytes = 0;
  for await (const { start, end } of parts) {
    if (fallocate(file.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, start, end - start) !== 0) {
      if (errorName() !== 'EOPNOTSUPP') throw systemError('fallocate');
      await writeZeros(file, start, end);
    }
    punchedBytes += end - start;
    if ((calls += 1) % CALLS_PER_TURN === 0) await otherWork();
  }
  return punchedBytes;
}

/** How long a file or a block device is, for which fstat(2) says 0. @throws StasisError `storage-failed` */
export function sizeOf(file: FileHandle): number {
  const size = Number(lseek(file.fd, 0, SEEK_END));
  if (size < 0) throw systemError('lseek');
  return size;
}

function seek(file: FileHandle, offset: number, whence: number): number | undefined {
  const found = Number(lseek(file.fd, offset, whence));
  if (found >= 0) return found;
  if (errorName() === 'ENXIO') return undefined; // nothing but a hole up to the end
  if (errorName() === 'EINVAL') return whence === SEEK_DATA ? offset : undefined; // a block device: it knows of no holes
  throw systemError('lseek');
}

async function writeZeros(file: FileHandle, start: number, end: number): Promise<void> {
  const zeros = Buffer.alloc(Math.min(end - start, ZEROS_BYTES));
  for (let position = start; position < end; position += zeros.length)
    await file.write(zeros, 0, Math.min(zeros.length, end - position), position);
}

function errorName(): string {
  return getSystemErrorName(-koffi.errno());
}

function systemError(call: string): StasisError {
  const errno = errorName();
  return new StasisError('storage-failed', `${call} failed on a memory file: ${errno}`, {
    details: { errno },
  });
}
