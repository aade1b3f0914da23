/** What survives a power cut. */
import { open } from 'node:fs/promises';
import { dirname } from 'node:path';

/** Makes what was written to a file, or named in a directory, durable. */
export async function syncPath(path: string): Promise<void> {
  await using file = await open(path, 'r');
  await file.sync();
}

/** Makes a file's content and its name durable. */
export async function syncFile(path: string): Promise<void> {
  await syncPath(path);
  await syncPath(dirname(path));
}
