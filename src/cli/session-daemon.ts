/**
 * The user's own session daemon, which starts by itself when a command needs it. The new daemon says over a pipe
 * when it listens, so that nobody has to guess how long that takes; if two commands start one each, one of the
 * two daemons says that the other already runs.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, open, readFile, type FileHandle } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { Readable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { connectUnix } from '../client/transport.ts';
import { StasisError, errnoOf, messageOf } from '../errors.ts';
import { programFile } from '../installation.ts';
import type { Paths } from '../paths.ts';

/** A daemon that comes back after a power loss first finishes what was under way. */
const PATIENCE_MS = 60_000;
/** One that holds the catalog and does not listen by then may have been ending. */
const SOON_MS = 3_000;
/** As in bin/stasis. What is soon garbage gets 4 MiB before it is collected, not 64: that is what a daemon would keep. */
const NODE_FLAGS = ['--disable-warning=ExperimentalWarning', '--max-semi-space-size=4'];
const READY_FD = 3;

/**
 * Resolves when the session daemon answers, starting it if need be.
 *
 * @throws as `startDaemonOf`
 */
export async function ensureSessionDaemon(paths: Paths, signal?: AbortSignal): Promise<void> {
  if (!(await answers(paths.socket))) await startDaemonOf(paths, [], signal);
}

/**
 * Starts a daemon and resolves when it answers, or when another one of this home does.
 *
 * @param args of `stasis daemon`, such as `--system`
 * @throws `daemon-unreachable`, with the last lines of the daemon's log, when it doesn't come up within 60 s
 */
export async function startDaemonOf(
  paths: Paths,
  args: readonly string[],
  signal?: AbortSignal,
): Promise<void> {
  await mkdir(dirname(paths.log), { recursive: true, mode: 0o700 });
  await using log = await open(paths.log, 'a', 0o600);
  const { size: logStart } = await log.stat();
  const patience = AbortSignal.any([
    AbortSignal.timeout(PATIENCE_MS),
    ...(signal === undefined ? [] : [signal]),
  ]);
  try {
    for (;;) {
      const said = await startDaemon(log, args, patience);
      if (said === 'ready') return;
      if (said !== 'running') throw new Error('it ended before it was ready');
      if (await answersSoon(paths.socket, patience)) return;
      // The one that ran was on its way out.
    }
  } catch (error) {
    signal?.throwIfAborted();
    const reason = patience.aborted ? `it was not ready within ${PATIENCE_MS / 1000} s` : messageOf(error);
    const lines = await lastLogLines(paths.log, logStart);
    throw new StasisError(
      'daemon-unreachable',
      [`the session daemon did not start: ${reason}`, ...lines].join('\n'),
      {
        details: { log: paths.log, hint: `its log is ${paths.log}` },
        cause: error,
      },
    );
  }
}

/** Whether a daemon listens; an error that isn't about its absence is for the request itself to tell. */
async function answers(socketPath: string): Promise<boolean> {
  try {
    const socket = await connectUnix(socketPath);
    socket.destroy();
    return true;
  } catch (error) {
    return !['ENOENT', 'ECONNREFUSED'].includes(errnoOf(error) ?? '');
  }
}

/** Starts a daemon that outlives this process, and resolves with the word it says, or '' if it ends without one. */
async function startDaemon(log: FileHandle, args: readonly string[], signal: AbortSignal): Promise<string> {
  const command = [...NODE_FLAGS, programFile('main'), 'daemon', ...args];
  const daemon = spawn(process.execPath, command, {
    cwd: '/', // it must not keep the directory of whoever happened to start it
    detached: true,
    env: daemonEnvironment(),
    stdio: ['ignore', log.fd, log.fd, 'pipe'],
  });
  daemon.unref();
  await once(daemon, 'spawn', { signal });
  return await firstWord(daemon, signal);
}

async function firstWord(daemon: ChildProcess, signal: AbortSignal): Promise<string> {
  const pipe = daemon.stdio[READY_FD];
  if (!(pipe instanceof Readable)) throw new Error('it was started without a pipe');
  using lines = createInterface({ input: pipe, signal });
  try {
    for await (const line of lines) return line.trim();
    signal.throwIfAborted();
    return '';
  } finally {
    pipe.destroy();
  }
}

/** Waits for a daemon that another command has just started. */
async function answersSoon(socketPath: string, signal: AbortSignal): Promise<boolean> {
  // To bind and to listen are two steps, and only the first can be watched from outside: so it is tried.
  for (const giveUpAt = performance.now() + SOON_MS; performance.now() < giveUpAt;) {
    if (await answers(socketPath)) return true;
    await delay(20, undefined, { signal });
  }
  return false;
}

function daemonEnvironment(): NodeJS.ProcessEnv {
  const home = process.env['STASIS_HOME'];
  return {
    ...process.env,
    STASIS_READY_FD: String(READY_FD),
    // relative to the directory of the command, which isn't the daemon's
    ...(home === undefined || home === '' ? {} : { STASIS_HOME: resolve(home) }),
  };
}

/** The last lines that were written to the log since `start`. */
async function lastLogLines(path: string, start: number): Promise<string[]> {
  const text = (await readFile(path)).subarray(start).toString('utf8');
  return text.trimEnd().split('\n').filter(Boolean).slice(-6).map(logMessage);
}

/** What a log line says: the message of a JSON record, or the line itself. */
function logMessage(line: string): string {
  try {
    const record: unknown = JSON.parse(line);
    if (typeof record === 'object' && record !== null && 'msg' in record) return String(record.msg);
  } catch {
    // not a record: a stack trace, or what the runtime itself has to say
  }
  return line;
}
