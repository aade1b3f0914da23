import { constants, open } from 'node:fs/promises';
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
