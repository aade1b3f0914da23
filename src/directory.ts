/** Directories that may not be there. */
import { readdir } from 'node:fs/promises';
import { errnoOf } from './errors.ts';

/** @returns the names in a directory; none when it does not exist */
export async function namesIn(directory: string): Promise<string[]> {
  try {
    return await readdir(directory);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return [];
    throw error;
  }
}
