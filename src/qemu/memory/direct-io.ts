import { constants, open, type FileHandle } from 'node:fs/promises';
import koffi from 'koffi';
import { errnoOf } from '../../errors.ts';

/**
 * Whether a file can be opened with O_DIRECT; some file systems refuse with EINVAL (open(2)). Asked before QEMU is
 * told to use it: a guest is not stopped for an attempt that must fail.
 * @param mode `write` makes the file (mode 0600) if it is missing
 */
export async function supportsDirectIo(path: string, mode: 'read' | 'write'): Promise<boolean> {
  const access = mode === 'read' ? constants.O_RDONLY : constants.O_WRONLY | constants.O_CREAT;
  try {
    const file = await open(path, access | constants.O_DIRECT, 0o600);
    await file.close();
    return true;
  } catch (error) {
    if (errnoOf(error) === 'EINVAL') return false;
    throw error;
  }
}

/** Memory that direct I/O can read into: it begins at a page of the machine's, where an ordinary buffer needn't. */
export function alignedBuffer(lengthBytes: number): Buffer {
  const memory = Buffer.allocUnsafeSlow(lengthBytes + ALIGNMENT_BYTES);
  const beyond = Number(koffi.address(memory) % BigInt(ALIGNMENT_BYTES));
  return memory.subarray(ALIGNMENT_BYTES - beyond, ALIGNMENT_BYTES - beyond + lengthBytes);
}

const ALIGNMENT_BYTES = 4096;

/**
 * What was read of a file is not needed again: lets the page cache forget it, unless somebody else has it mapped. Only advice,
 * posix_fadvise(2) with POSIX_FADV_DONTNEED: what fails is ignored.
 */
export function dropCached(file: FileHandle, offset: number, length: number): void {
  fadvise(file.fd, offset, length, POSIX_FADV_DONTNEED);
}

const fadvise = koffi
  .load('libc.so.6')
  .func('int posix_fadvise64(int fd, int64_t offset, int64_t length, int advice)');
const POSIX_FADV_DONTNEED = 4;
