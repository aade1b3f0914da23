import { readdir, readFile, readlink, realpath } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { errnoOf, StasisError } from '../errors.ts';

/** Every QEMU that Stasis starts has this on its command line, see process.ts. */
export const PID_FILE_ARGS = ['-pidfile', 'qemu.pid'] as const;

/**
 * The living processes that were started as QEMU of this run directory: those whose working directory it is and
 * whose command line says so (proc(5)). Found by looking at all processes rather than in `qemu.pid`, which may be
 * missing, stale, or name a process that has nothing to do with us.
 */
export async function findQemuProcesses(runDirectory: string): Promise<readonly number[]> {
  const directory = await realpath(runDirectory).catch(() => runDirectory);
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number);
  const isOurs = await Promise.all(pids.map((pid) => isQemuOf(pid, directory)));
  return pids.filter((_pid, index) => isOurs[index]);
}

async function isQemuOf(pid: number, directory: string): Promise<boolean> {
  const cwd = await proc(() => readlink(`/proc/${pid}/cwd`));
  if (cwd !== directory && cwd !== `${directory} (deleted)`) return false;
  const argv = (await proc(() => readFile(`/proc/${pid}/cmdline`, 'utf8')))?.split('\0') ?? [];
  return argv.some((arg, i) => arg === PID_FILE_ARGS[0] && argv[i + 1] === PID_FILE_ARGS[1]);
}

/** Whether the process has ended: a zombie that nobody has reaped yet counts, its resources are gone. */
export async function hasEnded(pid: number): Promise<boolean> {
  const stat = await proc(() => readFile(`/proc/${pid}/stat`, 'utf8'));
  // "<pid> (<command>) <state> …": the command may contain anything, also ")".
  const state = stat?.slice(stat.lastIndexOf(')') + 2, stat.lastIndexOf(')') + 3);
  return state === undefined || state === 'Z' || state === 'X';
}

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
