/**
 * A process as systemd's service: the socket that it was handed (sd_listen_fds(3)), and what it tells of itself (sd_notify(3),
 * sd_watchdog_enabled(3)). Started by anybody else it has no socket, and nobody listens to what it tells.
 */
import koffi from 'koffi';
import { StasisError, messageOf } from '../errors.ts';
import { sendDatagram } from './datagram.ts';

/** What systemd says to a service; none of it is meant for the processes that the service starts. */
const VARIABLES = [
  'LISTEN_PID',
  'LISTEN_FDS',
  'LISTEN_FDNAMES',
  'LISTEN_PIDFDID',
  'NOTIFY_SOCKET',
  'WATCHDOG_PID',
  'WATCHDOG_USEC',
] as const;

const FIRST_DESCRIPTOR = 3;
const F_SETFD = 2;
const FD_CLOEXEC = 1;

/** Asked for so much more time again and again, systemd waits as long as there is something to wait for. */
const EXTENSION_MS = 60_000;
const EXTEND_EVERY_MS = 15_000;

export interface Service {
  /** that of a socket which listens already; undefined: make one yourself */
  readonly socketDescriptor: number | undefined;
  /** It serves. */
  ready(): void;
  stopping(): void;
  /** One line for `systemctl status`. */
  status(text: string): void;
  /** Keeps systemd from losing its patience with a start or stop until this is disposed. */
  takeTime(): Disposable;
  /** Tells that the event loop turns, until this is disposed; systemd ends and restarts a service that is silent for too long. */
  watchdog(): Disposable;
}

/**
 * Takes what systemd has for this process out of the environment.
 * @param warn told when something can't be said to systemd
 * @throws StasisError `invalid-request` when it hands over anything but one socket
 */
export function takeService(environment: NodeJS.ProcessEnv, warn: (message: string) => void): Service {
  const own = Object.fromEntries(VARIABLES.map((name) => [name, environment[name]]));
  for (const name of VARIABLES) delete environment[name];
  const { NOTIFY_SOCKET: socket } = own;
  const tell = (...lines: string[]) => {
    if (!socket) return;
    try {
      sendDatagram(socket, lines.join('\n'));
    } catch (error) {
      warn(`systemd could not be told ${lines.join(', ')}: ${messageOf(error)}`);
    }
  };
  return {
    socketDescriptor: takeSocket(own),
    ready: () => tell('READY=1', 'STATUS='),
    stopping: () => tell('STOPPING=1'),
    status: (text) => tell(`STATUS=${text.replaceAll('\n', ' ')}`),
    takeTime: () => repeat(EXTEND_EVERY_MS, () => tell(`EXTEND_TIMEOUT_USEC=${EXTENSION_MS * 1000}`)),
    watchdog: () => {
      const silenceMs = watchdogMs(own);
      return silenceMs === undefined ? NOTHING : repeat(silenceMs / 2, () => tell('WATCHDOG=1'));
    },
  };
}

const NOTHING: Disposable = { [Symbol.dispose]: () => undefined };

/** Does it now and again and again. */
function repeat(everyMs: number, tell: () => void): Disposable {
  tell();
  const timer = setInterval(tell, everyMs).unref();
  return { [Symbol.dispose]: () => clearInterval(timer) };
}

type Own = Readonly<Record<string, string | undefined>>;

function watchdogMs({ WATCHDOG_PID: pid, WATCHDOG_USEC: silenceUs }: Own): number | undefined {
  const isOurs = pid === undefined || Number(pid) === process.pid;
  const ms = Number(silenceUs) / 1000;
  return isOurs && ms > 0 ? ms : undefined;
}

/** A socket that is another process's, say the shell's that started us, stays with it. */
function takeSocket({ LISTEN_PID: pid, LISTEN_FDS: count }: Own): number | undefined {
  if (count === undefined || Number(pid) !== process.pid) return undefined;
  if (Number(count) !== 1) {
    throw new StasisError(
      'invalid-request',
      `systemd hands over ${count} sockets; Stasis serves one: see ListenStream= of stasis.socket`,
    );
  }
  closeOnExec(FIRST_DESCRIPTOR);
  return FIRST_DESCRIPTOR;
}

/** A guest's QEMU must not keep our socket open. */
function closeOnExec(descriptor: number): void {
  const fcntl = koffi.load('libc.so.6').func('int fcntl(int fd, int command, ...)');
  if (fcntl(descriptor, F_SETFD, 'int', FD_CLOEXEC) === -1)
    throw new StasisError('internal', `descriptor ${descriptor} is not open, although LISTEN_FDS says so`);
}
