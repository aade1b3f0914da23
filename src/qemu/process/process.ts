import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { watch } from 'node:fs';
import { access, mkdir, open, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { errnoOf, StasisError } from '../../errors.ts';
import {
  findPagerProcesses,
  findQemuProcesses,
  findTpmProcesses,
  PID_FILE_ARGS,
  waitForEnd,
} from './process-scan.ts';
import { QmpClient } from '../qmp/client.ts';
import { throwIfAborted, waitFor, type WaitOptions } from '../wait.ts';

const QMP_SOCKET = 'qmp.sock';
const PID_FILE = PID_FILE_ARGS[1];
const LOG_FILE = 'qemu.log';
const LAUNCH_TIMEOUT_MS = 30_000;
/** A process that was killed is gone after that, unless the kernel holds it. */
const DYING_MS = 10_000;
const LOG_TAIL_LINES = 8;

export interface LaunchOptions extends WaitOptions {
  /** The emulator's path. */
  readonly binary: string;
  /** Its arguments, without `-qmp`, `-pidfile` and `-daemonize`. */
  readonly args: readonly string[];
  /** Made if missing (mode 0700). Becomes QEMU's working directory; holds its socket, pid file and log. */
  readonly runDirectory: string;
  /** A program, with its arguments, that becomes QEMU after it has changed what QEMU sees of the world. */
  readonly startedBy?: readonly string[];
}

/** How a QEMU ended. Both `null` when it wasn't our child: then nobody can tell us. */
export interface QemuExit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** A running QEMU. It outlives this object and this process: disposing only closes the QMP connection. */
export interface QemuProcess extends AsyncDisposable {
  readonly pid: number;
  readonly qmp: QmpClient;
  readonly runDirectory: string;
  /**
   * Resolves, never rejects, when QEMU has ended. For one that was attached to: not any more once we have closed
   * the QMP connection, whose end is how we hear of it.
   */
  readonly exited: Promise<QemuExit>;
}

/**
 * Starts a detached QEMU and waits until QMP answers. Socket, pid file and log have paths relative to the run
 * directory, so that its length doesn't matter. When this fails, no process is left.
 *
 * @throws StasisError `qemu-failed` when QEMU ends first (message and `details.log`: the end of its log),
 *   `qemu-missing`, `timeout` (30 s unless told otherwise), `cancelled`
 */
export async function launchQemu(options: LaunchOptions): Promise<QemuProcess> {
  const { binary, args, runDirectory, signal, timeoutMs = LAUNCH_TIMEOUT_MS, startedBy = [] } = options;
  throwIfAborted(signal, 'starting QEMU');
  await mkdir(runDirectory, { recursive: true, mode: 0o700 });
  await Promise.all([QMP_SOCKET, PID_FILE].map((name) => rm(join(runDirectory, name), { force: true })));

  const { child, exited } = await spawnDetached([...startedBy, binary], args, runDirectory);
  const connecting = new AbortController();
  try {
    const failed = failOnExit(binary, exited, runDirectory);
    const started = Promise.race([connectWhenUp(runDirectory, failed, connecting.signal), failed]);
    const qmp = await waitFor('the start of QEMU', started, { signal, timeoutMs });
    return qemuProcess(pidOf(child), qmp, runDirectory, exited);
  } catch (error) {
    child.kill('SIGKILL');
    await exited;
    throw error;
  } finally {
    connecting.abort();
  }
}

type AttachOptions = WaitOptions & { readonly expectedUuid?: string };

/**
 * Finds the QEMU of a run directory again, for a daemon that was restarted.
 *
 * @returns `undefined` when none is there any more
 * @throws StasisError `qemu-failed` when it is another guest's (its UUID differs), `timeout` when it doesn't
 *   answer: another client may hold its socket, or it is stopped by a signal
 */
export async function attachQemu(
  runDirectory: string,
  options: AttachOptions,
): Promise<QemuProcess | undefined> {
  try {
    return await attach(runDirectory, options);
  } catch (error) {
    if (StasisError.from(error).code !== 'guest-crashed') throw error;
    // It was being killed when it accepted us.
    await Promise.all((await findQemuProcesses(runDirectory)).map((pid) => waitForEnd(pid, DYING_MS)));
    return undefined;
  }
}

async function attach(runDirectory: string, options: AttachOptions): Promise<QemuProcess | undefined> {
  const qmp = await connectIfUp(runDirectory, options);
  if (qmp === undefined) return undefined;
  try {
    const { UUID: uuid } = await qmp.execute('query-uuid', undefined, options);
    if (options.expectedUuid !== undefined && uuid !== options.expectedUuid.toLowerCase()) {
      throw new StasisError('qemu-failed', `the QEMU in ${runDirectory} runs another guest`, {
        details: { runDirectory, uuid, expectedUuid: options.expectedUuid },
      });
    }
    const [pid] = await findQemuProcesses(runDirectory);
    if (pid === undefined) {
      throw new StasisError('qemu-failed', `the QEMU that answers in ${runDirectory} was not started there`, {
        details: { runDirectory },
      });
    }
    const exited = followExit(pid, qmp);
    return qemuProcess(pid, qmp, runDirectory, exited);
  } catch (error) {
    await qmp.close();
    throw error;
  }
}

/**
 * Makes sure that no QEMU of this run directory is left, no pager of its memory and no TPM, whoever started them and whatever
 * state they are in. First SIGTERM, at which QEMU closes its disk images in order, then SIGKILL. Needs no QMP, so it works while somebody
 * else holds the socket. Idempotent.
 *
 * @throws StasisError `timeout` when even SIGKILL does nothing (a process stuck in the kernel)
 */
export async function killQemu(
  runDirectory: string,
  options: { readonly graceMs?: number } = {},
): Promise<void> {
  const { graceMs = 2_000 } = options;
  const endAll = async (pids: readonly number[]) => {
    await Promise.all(pids.map((pid) => endProcess(pid, graceMs)));
  };
  await endAll(await findQemuProcesses(runDirectory));
  // They end with it, if it has got as far as to connect to them. Never before: a QEMU that ends may wait for a page, and
  // one that loses its pager is given another.
  await endAll([...(await findPagerProcesses(runDirectory)), ...(await findTpmProcesses(runDirectory))]);
  await Promise.all([QMP_SOCKET, PID_FILE].map((name) => rm(join(runDirectory, name), { force: true })));
}

/** SIGTERM, and SIGKILL when that has not helped within `graceMs`; at once when it is 0. */
export async function endProcess(pid: number, graceMs: number): Promise<void> {
  if (graceMs > 0) {
    sendSignal(pid, 'SIGTERM');
    try {
      return await waitForEnd(pid, graceMs);
    } catch (error) {
      if (!(error instanceof StasisError && error.code === 'timeout')) throw error;
    }
  }
  sendSignal(pid, 'SIGKILL');
  await waitForEnd(pid, 30_000);
}

function sendSignal(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    if (errnoOf(error) !== 'ESRCH') throw error; // ended by itself: just what we want
  }
}

async function followExit(pid: number, qmp: QmpClient): Promise<QemuExit> {
  const reason = await qmp.closed;
  if (reason.code === 'interrupted') return new Promise(() => undefined);
  await waitForEnd(pid, Infinity); // it closes its files in the last moments of its life
  return { code: null, signal: null };
}

function qemuProcess(
  pid: number,
  qmp: QmpClient,
  runDirectory: string,
  exited: Promise<QemuExit>,
): QemuProcess {
  return { pid, qmp, runDirectory, exited, [Symbol.asyncDispose]: () => qmp.close() };
}

interface Spawned {
  readonly child: ChildProcess;
  readonly exited: Promise<QemuExit>;
}

async function spawnDetached(
  [program = '', ...before]: readonly string[],
  args: readonly string[],
  runDirectory: string,
): Promise<Spawned> {
  await using log = await open(join(runDirectory, LOG_FILE), 'w', 0o600);
  const qmpArgs = ['-qmp', `unix:${QMP_SOCKET},server=on,wait=off`];
  const child = spawn(program, [...before, ...args, ...PID_FILE_ARGS, ...qmpArgs], {
    cwd: runDirectory,
    detached: true,
    stdio: ['ignore', log.fd, log.fd],
  });
  const { promise: exited, resolve } = Promise.withResolvers<QemuExit>();
  child.once('exit', (code, signal) => resolve({ code, signal }));
  child.unref();
  try {
    await once(child, 'spawn');
  } catch (error) {
    throw new StasisError('qemu-missing', `cannot execute ${program}`, {
      cause: error,
      details: { program },
    });
  }
  return { child, exited };
}

function pidOf(child: ChildProcess): number {
  if (child.pid === undefined) throw new StasisError('internal', 'a spawned child has no process id');
  return child.pid;
}

/**
 * The last lines that the QEMU of this run directory wrote. It tells there, and nowhere else, why a load failed
 * ("Machine type received is …"): QMP only says "Invalid argument".
 */
export async function readLogTail(runDirectory: string): Promise<readonly string[]> {
  const text = await readFile(join(runDirectory, LOG_FILE), 'utf8');
  return text.trimEnd().split('\n').slice(-LOG_TAIL_LINES);
}

/** The last that the QEMU of this run directory said, with its time; undefined when it said nothing, or all of it is gone. */
export async function lastWords(runDirectory: string): Promise<string | undefined> {
  try {
    return (await readLogTail(runDirectory)).at(-1) || undefined;
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}

async function failOnExit(binary: string, exited: Promise<QemuExit>, runDirectory: string): Promise<never> {
  const exit = await exited;
  const log = await readLogTail(runDirectory);
  const how = exit.signal === null ? `status ${exit.code}` : exit.signal;
  throw new StasisError('qemu-failed', `QEMU ended at its start (${how}): ${log.join(' / ')}`, {
    details: { binary, runDirectory, ...exit, log },
  });
}

/**
 * Connects as soon as QEMU listens: its socket's appearance in the directory is an event. QEMU may still end after it
 * has accepted us, on a bad device for instance: then `failed` has the reason.
 */
async function connectWhenUp(
  runDirectory: string,
  failed: Promise<never>,
  signal: AbortSignal,
): Promise<QmpClient> {
  using appeared = watchFor(runDirectory, QMP_SOCKET);
  for (;;) {
    throwIfAborted(signal, 'connecting to QEMU');
    try {
      const qmp = await connectIfUp(runDirectory, { signal });
      if (qmp !== undefined) return qmp;
    } catch (error) {
      if (error instanceof StasisError && error.code === 'guest-crashed') return await failed;
      throw error;
    }
    if (await exists(join(runDirectory, QMP_SOCKET))) {
      await delay(2); // between QEMU's bind(2) and listen(2), which nothing announces
    } else {
      await waitFor("QEMU's QMP socket", appeared.next(), { signal });
    }
  }
}

async function connectIfUp(runDirectory: string, options: WaitOptions): Promise<QmpClient | undefined> {
  try {
    return await QmpClient.connect(join(runDirectory, QMP_SOCKET), options);
  } catch (error) {
    if (['ENOENT', 'ECONNREFUSED'].includes(errnoOf(error) ?? '')) return undefined;
    throw error;
  }
}

function watchFor(directory: string, name: string): Disposable & { next(): Promise<void> } {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  promise.catch(() => undefined); // nobody need be waiting when the watch fails
  const watcher = watch(directory, (_kind, changed) => {
    if (changed === name) resolve();
  });
  watcher.once('error', reject);
  return { next: () => promise, [Symbol.dispose]: () => watcher.close() };
}

/** @throws Node's system errors, `ENOENT` excepted */
export async function exists(path: string): Promise<boolean> {
  try {
    await access(path);
    return true;
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return false;
    throw error;
  }
}
