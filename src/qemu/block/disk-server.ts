/**
 * A disk file served read-only as an NBD export by a process of its own (qemu-nbd), to any number of clients. It reads
 * through the layers below by itself. It ends when its last client has gone, and outlives whoever started it.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { StasisError } from '../../errors.ts';
import type { DiskFormat } from './image-tool.ts';
import { connectNbd, type NbdConnection } from './nbd-connection.ts';
import { endProcess } from '../process/process.ts';
import { findByArgument } from '../process/process-scan.ts';

const SOCKET = 'nbd.sock';
/** What the kernel allows, terminating zero excluded; clients of other makes know no way around it. */
const LONGEST_SOCKET_BYTES = 107;

export interface DiskServer {
  readonly pid: number;
  /** The first client: without one the server would wait for it for ever. */
  readonly client: NbdConnection;
}

/** Where the server of this directory listens. @throws StasisError `unsupported` when that is too long for a socket */
export function diskServerSocket(runDirectory: string): string {
  const path = join(runDirectory, SOCKET);
  if (Buffer.byteLength(path) <= LONGEST_SOCKET_BYTES) return path;
  throw new StasisError(
    'unsupported',
    `${path} is too long for a socket (over ${LONGEST_SOCKET_BYTES} bytes); set STASIS_HOME or XDG_RUNTIME_DIR to a shorter directory`,
    { details: { path } },
  );
}

/**
 * Starts the server of an existing directory. When this fails, no process is left.
 * @param program `qemu-nbd`, and what becomes it (process/user.ts)
 * @throws StasisError `storage-failed` with the tool's own words, `qemu-missing`
 */
export async function serveDisk(
  program: readonly string[],
  runDirectory: string,
  disk: { readonly path: string; readonly format: DiskFormat },
): Promise<DiskServer> {
  const socket = diskServerSocket(runDirectory);
  await rm(socket, { force: true });
  // With --fork the tool returns when it serves; any number of clients (0) may come.
  const args = ['--fork', '--read-only', '--shared=0', `--format=${disk.format}`, socketArgument(socket)];
  const [starter = '', ...starting] = program;
  const child = spawn(starter, [...starting, ...args, '--', disk.path], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  try {
    const [errors] = await Promise.all([text(child.stderr), once(child, 'close')]);
    if (child.exitCode !== 0)
      throw new StasisError('storage-failed', errors.trim(), { details: { ...disk } });
    const [pid] = await findByArgument(socketArgument(socket));
    if (pid === undefined) throw new StasisError('storage-failed', 'qemu-nbd ended at its start');
    return { pid, client: await connectNbd(socket) };
  } catch (error) {
    await endDiskServer(runDirectory);
    if (error instanceof StasisError) throw error;
    throw new StasisError('qemu-missing', `cannot execute ${program.at(-1) ?? ''} (package qemu-utils)`, {
      cause: error,
    });
  }
}

/** The process that serves in a directory, if one does. */
export async function findDiskServer(runDirectory: string): Promise<number | undefined> {
  return (await findByArgument(socketArgument(join(runDirectory, SOCKET))))[0];
}

/** Makes sure that nobody serves in a directory. Repeatable. */
export async function endDiskServer(runDirectory: string): Promise<void> {
  const pids = await findByArgument(socketArgument(join(runDirectory, SOCKET)));
  await Promise.all(pids.map((pid) => endProcess(pid, 2_000)));
}

/** Tells one server's process from another's. */
function socketArgument(path: string): string {
  return `--socket=${path}`;
}
