/** How the pager and whoever started it, or comes later, know of each other: small files in QEMU's run directory. */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { StasisError } from '../../errors.ts';
import { fromStored } from '../../stored.ts';
import { readOwnFile, writeOwnFile } from '../process/run-files.ts';
import type { PagerProgress, PagerRequest } from './pager.ts';

/** Where QEMU listens for its pager, beside them. Relative: nobody's path is too long then. */
export const PAGER_SOCKET = 'pager.sock';
export const PAGER_LOG = 'pager.log';
const REQUEST = 'pager.json';
const STATUS = 'pager-status.json';

export interface PagerStatus extends PagerProgress {
  /** Milliseconds since the epoch. */
  readonly at: number;
  readonly state: 'serving' | 'done' | 'failed';
  /** Why it failed, for a person. */
  readonly reason?: string | undefined;
}

export async function writePagerRequest(runDirectory: string, request: PagerRequest): Promise<void> {
  await writeOwnFile(join(runDirectory, REQUEST), JSON.stringify(request));
}

/** All of the memory is there: nobody needs a pager any more. */
export async function removePagerRequest(runDirectory: string): Promise<void> {
  await rm(join(runDirectory, REQUEST), { force: true });
}

/** @returns `undefined` when the QEMU of this directory never had a pager, or has all of its memory */
export async function readPagerRequest(runDirectory: string): Promise<PagerRequest | undefined> {
  return readIfThere<PagerRequest>(join(runDirectory, REQUEST));
}

export async function writePagerStatus(runDirectory: string, status: PagerStatus): Promise<void> {
  await writeOwnFile(join(runDirectory, STATUS), JSON.stringify(status));
}

/** @returns `undefined` before the pager serves */
export async function readPagerStatus(runDirectory: string): Promise<PagerStatus | undefined> {
  return readIfThere<PagerStatus>(join(runDirectory, STATUS));
}

// oxlint-disable-next-line typescript/no-unnecessary-type-parameters
async function readIfThere<T>(path: string): Promise<T | undefined> {
  const text = await readOwnFile(path);
  if (text === undefined) return undefined;
  try {
    return fromStored<T>(text);
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw new StasisError('qemu-failed', `${path} can't be read: it is no JSON`, { cause: error });
  }
}
