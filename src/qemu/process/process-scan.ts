import { readdir, readFile, readlink, realpath } from 'node:fs/promises';
import { parse } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { errnoOf, StasisError } from '../../errors.ts';

/** Every QEMU that Stasis starts has this on its command line, see process.ts. */
export const PID_FILE_ARGS = ['-pidfile', 'qemu.pid'] as const;

/** The program of every pager, see pager-process.ts; with the extension of source or build. */
export const PAGER_PROGRAM = 'pager-main';

/** The program of every TPM, see tpm.ts. */
export const TPM_PROGRAM = 'swtpm';

/**
 * The living processes that were started as QEMU of this run directory: those whose working directory it is and
 * whose command line says so (proc(5)). Found by looking at all processes rather than in `qemu.pid`, which may be
 * missing, stale, or name a process that has nothing to do with us.
 */
export async function findQemuProcesses(runDirectory: string): Promise<readonly number[]> {
  return findProcesses(runDirectory, (argv) =>
    argv.some((arg, i) => arg === PID_FILE_ARGS[0] && argv[i + 1] === PID_FILE_ARGS[1]),
  );
}

/** The same for the pagers of a QEMU's memory: one, or none. */
export async function findPagerProcesses(runDirectory: string): Promise<readonly number[]> {
  return findProcesses(runDirectory, (argv) => argv.some((arg) => parse(arg).name === PAGER_PROGRAM));
}

/** The living processes that have this very argument: something that nobody else's has, such as a path of ours. */
export async function findByArgument(argument: string): Promise<readonly number[]> {
  const pids = await allPids();
  const have = await Promise.all(
    pids.map(async (pid) => (await argumentsOf(pid)).includes(argument) && !(await hasEnded(pid))),
  );
  return pids.filter((_pid, index) => have[index]);
}

/** The same for its TPM. */
export async function findTpmProcesses(runDirectory: string): Promise<readonly number[]> {
  return findProcesses(runDirectory, ([program = '']) => parse(program).base === TPM_PROGRAM);
}

async function findProcesses(
  runDirectory: string,
  isWanted: (argv: readonly string[]) => boolean,
): Promise<readonly number[]> {
  const directory = await realpath(runDirectory).catch(() => runDirectory);
  const pids = await allPids();
  const areOurs = await Promise.all(
    pids.map(async (pid) => (await isIn(pid, directory)) && isWanted(await argumentsOf(pid))),
  );
  return pids.filter((_pid, index) => areOurs[index]);
}

async function allPids(): Promise<readonly number[]> {
  return (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number);
}

async function isIn(pid: number, directory: string): Promise<boolean> {
  const cwd = await proc(() => readlink(`/proc/${pid}/cwd`));
  return cwd === directory || cwd === `${directory} (deleted)`;
}

async function argumentsOf(pid: number): Promise<readonly string[]> {
  return (await proc(() => readFile(`/proc/${pid}/cmdline`, 'utf8')))?.split('\0') ?? [];
}

/**
 * Whether the process has ended. A zombie that nobody has reaped yet counts, but only when it was its last thread: as
 * long as others are still on their way out, files are open and locked.
 */
export async function hasEnded(pid: number): Promise<boolean> {
  const stat = await proc(() => readFile(`/proc/${pid}/stat`, 'utf8'));
  if (stat === undefined) return true;
  // "<pid> (<command>) <state> …", proc_pid_stat(5): the command may contain anything, also ")".
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const [state, threads] = [fields[STATE], fields[THREADS]];
  return state === 'X' || (state === 'Z' && threads === '1');
}

/** Places in `/proc/PID/stat` from behind the command on: fields 3 and 20. */
const STATE = 0;
const THREADS = 17;

/**
 * Waits for the end of a process that need not be our child. Looks every 10 ms: inotify doesn't see /proc, and
 * Node has no pidfd.
 * @throws StasisError `timeout`
 */
export async function waitForEnd(pid: number, timeoutMs: number): Promise<void> {
  const giveUp = performance.now() + timeoutMs;
  while (!(await hasEnded(pid))) {
    if (performance.now() > giveUp) {
      throw new StasisError('timeout', `process ${pid} did not end within ${timeoutMs} ms`, {
        details: { pid },
      });
    }
    await delay(10);
  }
}

/** What `read` reads of a process; `undefined` when it has ended meanwhile, or isn't ours to look at. */
async function proc<T>(read: () => Promise<T>): Promise<T | undefined> {
  try {
    return await read();
  } catch (error) {
    if (['ENOENT', 'ESRCH', 'EACCES', 'EPERM'].includes(errnoOf(error) ?? '')) return undefined;
    throw error;
  }
}
