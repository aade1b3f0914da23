/** What survives a power cut. */
import { mkdir, open, rename } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { namesIn } from '../directory.ts';
import { errnoOf } from '../errors.ts';

/** Makes what was written to a file, or named in a directory, durable. */
export async function syncPath(path: string): Promise<void> {
  await using file = await open(path, 'r');
  await file.sync();
}

/** Writes a small file so that after a power cut it is there whole, as it was before, or not at all. For its owner alone. */
export async function writeDurably(path: string, text: string): Promise<void> {
  const draft = `${path}.draft`;
  {
    await using file = await open(draft, 'w', 0o600);
    await file.writeFile(text);
    await file.sync();
  }
  await rename(draft, path);
  await syncPath(dirname(path));
}

/** Makes a file's content and its name durable. */
export async function syncFile(path: string): Promise<void> {
  await syncPath(path);
  await syncPath(dirname(path));
}

/** Makes a directory, with those above it that aren't there, so that their names survive a power cut. For its owner alone. */
export async function makeDirectory(path: string): Promise<void> {
  const first = await mkdir(path, { recursive: true, mode: 0o700 });
  if (first === undefined) return;
  for (let made = path; made.length >= first.length; made = dirname(made)) await syncPath(dirname(made));
}

/** Makes a directory durable with the files in it, which others may be replacing meanwhile. */
export async function syncDirectory(directory: string): Promise<void> {
  for (const name of await namesIn(directory)) {
    try {
      await syncPath(join(directory, name));
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw error; // just replaced by another
    }
  }
  await syncFile(directory);
}
