/**
 * A TPM for a guest: swtpm, a process of its own beside its QEMU. It starts before QEMU, which is its one client, outlives the
 * daemon as QEMU does, and ends when QEMU lets go of it.
 *
 * What the TPM stores for ever is a file in its state directory, which no two processes may share. In a migration all of its state
 * goes with QEMU's own, what it stores as well as its registers: a TPM that begins with an empty directory becomes the saved one.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { watch } from 'node:fs';
import { mkdir, open, readFile, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { StasisError } from '../errors.ts';
import { findInPath } from './build/binary.ts';
import { exists } from './process/process.ts';
import { TPM_PROGRAM } from './process/process-scan.ts';
import { waitFor } from './wait.ts';
import { writeThrough } from './write-through.ts';

/** Relative to the run directory, where both processes are. */
export const TPM_SOCKET = 'tpm.sock';
/** swtpm makes it last, when it listens. The socket is there before it does. */
const PID_FILE = 'tpm.pid';
const LOG_FILE = 'tpm.log';
/** What swtpm stores for ever. It replaces the file by renaming, and doesn't itself wait until it is on the disk. */
const STORED = 'tpm2-00.permall';
const START_TIMEOUT_MS = 10_000;

/** @throws StasisError `unsupported` with what to install */
export async function findTpmProgram(): Promise<string> {
  const path = await findInPath(TPM_PROGRAM, process.env);
  if (path !== undefined) return path;
  throw new StasisError(
    'unsupported',
    'a TPM needs swtpm, which is not installed: on Debian and Ubuntu, apt-get install swtpm',
  );
}

/**
 * After a power cut the file may be there with nothing in it, which swtpm takes for damage: the guest could never be started
 * again. Such a TPM begins anew.
 * @returns true when there was nothing in it
 */
export async function removeEmptyTpm(stateDirectory: string): Promise<boolean> {
  const path = join(stateDirectory, STORED);
  if (!(await exists(path)) || (await stat(path)).size > 0) return false;
  await rm(path);
  return true;
}

/**
 * Starts a TPM 2.0 and waits until QEMU can connect to it. It is ended by QEMU's end, or by `killQemu`.
 * @param stateDirectory made when needed, mode 0700; no other TPM may use it
 * @param startedBy what becomes it (process/user.ts)
 * @throws StasisError `unsupported`, `qemu-failed` with the end of its log, `timeout`, `cancelled`
 */
export async function startTpm(
  runDirectory: string,
  stateDirectory: string,
  signal: AbortSignal,
  startedBy: readonly string[] = [],
): Promise<void> {
  const [program, ...before] = [...startedBy, await findTpmProgram()];
  await mkdir(stateDirectory, { recursive: true, mode: 0o700 });
  // What the guest is told is stored is on the disk then, as in a real TPM; where that can't be, the last seconds may be lost.
  await writeThrough(stateDirectory);
  for (const file of [TPM_SOCKET, PID_FILE]) await rm(join(runDirectory, file), { force: true });
  const appeared = Promise.withResolvers<void>();
  using watcher = disposable(watch(runDirectory, (_kind, name) => name === PID_FILE && appeared.resolve()));
  watcher.once('error', appeared.reject);
  await using log = await open(join(runDirectory, LOG_FILE), 'w', 0o600);
  const child = spawn(
    program,
    [
      ...before,
      ...['socket', '--tpm2', '--terminate', '--tpmstate', `dir=${stateDirectory},mode=0600`],
      ...['--ctrl', `type=unixio,path=${TPM_SOCKET},mode=0600`, '--pid', `file=${PID_FILE}`],
    ],
    { cwd: runDirectory, detached: true, stdio: ['ignore', log.fd, log.fd] },
  );
  child.unref();
  const ended = once(child, 'exit').then(async () => {
    const words = (await readFile(join(runDirectory, LOG_FILE), 'utf8').catch(() => '')).trim();
    throw new StasisError('qemu-failed', `swtpm ended at its start: ${words.replaceAll('\n', ' / ')}`);
  });
  ended.catch(() => undefined); // later it ends with QEMU
  if (await exists(join(runDirectory, PID_FILE))) appeared.resolve();
  await waitFor('the start of swtpm', Promise.race([appeared.promise, ended]), {
    signal,
    timeoutMs: START_TIMEOUT_MS,
  });
}

function disposable<T extends { close(): void }>(closable: T): T & Disposable {
  return Object.assign(closable, { [Symbol.dispose]: () => closable.close() });
}
