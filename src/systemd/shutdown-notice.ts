/**
 * Word of a shutdown of the host before anything is stopped for it. logind(8) announces one and then waits for those that
 * hold a delay lock, by default 5 s at most (InhibitDelayMaxSec= of logind.conf(5)); what begins then has the whole host around it.
 *
 * The lock is a descriptor that comes over D-Bus, and the announcement a signal there: systemd-inhibit holds the one for as long as
 * busctl waits for the other.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { ENDING_WITH_US } from '../ending-with-us.ts';
import { messageOf } from '../errors.ts';
import type { Log } from '../log.ts';

const SIGNAL = "type='signal',interface='org.freedesktop.login1.Manager',member='PrepareForShutdown'";
const COMMAND = [
  ...['--what=shutdown', '--mode=delay', '--who=Stasis', '--why=Guests are saved'],
  ...['busctl', '--system', '--json=short', `--match=${SIGNAL}`, 'monitor'],
];

/**
 * Calls `prepare` once when a shutdown is announced, and lets it go on when that has ended. Where there is no logind
 * nothing is announced; then the unit of the guests has to do.
 */
export function onShutdownNotice(prepare: () => Promise<void>, log: Log): AsyncDisposable {
  const [starter, ...ending] = ENDING_WITH_US; // a lock that nobody gives back would hold up every shutdown
  const child = spawn(starter, [...ending, 'systemd-inhibit', ...COMMAND], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  let isReleased = false;
  child.once('error', (error) =>
    log.warn({}, `no notice of shutdowns: systemd-inhibit: ${messageOf(error)}`),
  );
  child.once('exit', (status) => {
    if (!isReleased) log.warn({ status }, 'no notice of shutdowns any more: systemd-inhibit has ended');
  });
  const lines = createInterface({ input: child.stdout });
  lines.on('line', (line) => {
    if (!announcesShutdown(line)) return;
    void prepare().finally(release);
  });
  const release = () => {
    isReleased = true;
    child.kill();
  };
  return {
    async [Symbol.asyncDispose]() {
      if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
      const ended = once(child, 'exit');
      release();
      await ended;
    },
  };
}

/** @param line a message as busctl prints it: `PrepareForShutdown` has one argument, false when the host stays up after all */
export function announcesShutdown(line: string): boolean {
  try {
    const message: unknown = JSON.parse(line);
    if (typeof message !== 'object' || message === null) return false;
    if (!('member' in message && 'payload' in message)) return false;
    const { member, payload } = message;
    if (member !== 'PrepareForShutdown' || typeof payload !== 'object' || payload === null) return false;
    return 'data' in payload && Array.isArray(payload.data) && payload.data[0] === true;
  } catch {
    return false; // no message: what busctl says to people
  }
}
