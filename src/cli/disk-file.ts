/** A served disk as a file that any program can read: qemu-storage-daemon's FUSE export, a child of this command. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { rm, stat, writeFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { text } from 'node:stream/consumers';
import type { DiskExport } from '../api/schemas.ts';
import { StasisError, errnoOf } from '../errors.ts';
import { findTool } from '../qemu/build/binary.ts';

export interface DiskFile extends AsyncDisposable {
  readonly path: string;
  /** Resolves, never rejects, when it has ended, with what its program said. */
  readonly ended: Promise<string>;
}

/**
 * Lets the raw disk appear, read-only, in the place of an empty file. One that isn't there is made, and goes with it.
 * @throws StasisError `invalid-request` when the file is not empty; `unsupported` when this host has no FUSE for us
 */
export async function showAsFile({ socket }: DiskExport, file: string): Promise<DiskFile> {
  const path = resolve(file);
  const isOurs = await makeEmptyFile(path);
  const emptyDevice = (await stat(path)).dev;
  const nbd = `driver=nbd,node-name=disk,read-only=on,server.type=unix,server.path=${escapeCommas(socket)}`;
  const fuse = `type=fuse,id=file,node-name=disk,writable=off,mountpoint=${escapeCommas(path)}`;
  // The kernel ends it with us, however we end; QEMU's daemon takes its mount away then.
  const args = ['--pdeathsig', 'TERM', await findTool('qemu-storage-daemon')];
  const child = spawn('setpriv', [...args, '--blockdev', nbd, '--export', fuse], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const ended = Promise.all([text(child.stderr), once(child, 'close')]).then(
    ([errors]) => errors.trim(),
    () => 'setpriv (package util-linux) can not be executed',
  );
  const end = async () => {
    child.kill('SIGTERM');
    await ended;
    if (isOurs) await rm(path, { force: true });
  };
  const isThere = async () => (await stat(path)).dev !== emptyDevice;
  const failure = await Promise.race([ended, appears(isThere, child)]);
  if (failure === undefined) return { path, ended, [Symbol.asyncDispose]: end };
  await end();
  throw new StasisError(
    'unsupported',
    `the disk can't be shown as a file: ${failure}; /dev/fuse and the package fuse3 are needed`,
  );
}

/** @returns whether it was made */
async function makeEmptyFile(path: string): Promise<boolean> {
  try {
    await writeFile(path, '', { flag: 'wx' });
    return true;
  } catch (error) {
    if (errnoOf(error) !== 'EEXIST') throw error;
    const there = await stat(path);
    if (!there.isFile() || there.size > 0)
      throw new StasisError(
        'invalid-request',
        `${path} is not an empty file; name one, or one that is not there`,
      );
    return false;
  }
}

/** A mount is announced by nothing that Node can wait for: looked for every 20 ms while its program lives. */
async function appears(
  isThere: () => Promise<boolean>,
  child: { readonly exitCode: number | null },
): Promise<undefined> {
  const { setTimeout: delay } = await import('node:timers/promises');
  while (!(await isThere()) && child.exitCode === null) await delay(20);
  return undefined;
}

/** In QEMU's option lists a comma in a value is written twice. */
function escapeCommas(value: string): string {
  return value.replaceAll(',', ',,');
}
