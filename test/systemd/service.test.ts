/** What a service says to systemd, and the socket it is handed, against sockets as systemd makes them. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { access, mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import koffi from 'koffi';
import { StasisClient } from '../../src/client/index.ts';
import { sessionPaths } from '../../src/paths.ts';
import { sendDatagram, socketAddress } from '../../src/systemd/datagram.ts';
import { takeService } from '../../src/systemd/service.ts';

const MAIN = join(import.meta.dirname, '../../src/main.ts');

const libc = koffi.load('libc.so.6');
const socket = libc.func('int socket(int domain, int type, int protocol)');
const bind = libc.func('int bind(int fd, const void *address, unsigned int length)');
const recv = libc.func('int64_t recv(int fd, void *data, size_t length, int flags)');
const listen = libc.func('int listen(int fd, int backlog)');
const close = libc.func('int close(int fd)');
const [AF_UNIX, SOCK_STREAM, SOCK_DGRAM, MSG_DONTWAIT] = [1, 1, 2, 0x40];

function bound(name: string, type: number): number {
  const address = socketAddress(name);
  const fd = Number(socket(AF_UNIX, type, 0));
  assert.equal(bind(fd, address, address.length), 0);
  return fd;
}

/** A socket as systemd's own for notifications. */
class Listener implements Disposable {
  readonly #fd: number;

  constructor(name: string) {
    this.#fd = bound(name, SOCK_DGRAM);
  }

  /** What was sent since; a datagram to a unix socket is there when `sendto` has returned. */
  heard(): string[] {
    const said = [];
    const data = Buffer.alloc(4096);
    for (;;) {
      const length = Number(recv(this.#fd, data, data.length, MSG_DONTWAIT));
      if (length < 0) return said;
      said.push(data.toString('utf8', 0, length));
    }
  }

  [Symbol.dispose](): void {
    close(this.#fd);
  }
}

async function directory(): Promise<AsyncDisposable & { readonly path: string }> {
  const path = await mkdtemp(join(tmpdir(), 'stasis-sd-'));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}

const fail = (message: string): never => assert.fail(message);

test('a service tells its state, in the file system and in the abstract', async () => {
  await using home = await directory();
  for (const name of [join(home.path, 'notify'), `@stasis-test-${process.pid}`]) {
    using listener = new Listener(name);
    const environment: NodeJS.ProcessEnv = { NOTIFY_SOCKET: name, PATH: '/bin' };
    const service = takeService(environment, fail);
    service.status('two\nlines');
    service.ready();
    service.stopping();
    assert.deepEqual(listener.heard(), ['STATUS=two lines', 'READY=1\nSTATUS=', 'STOPPING=1']);
    assert.deepEqual(environment, { PATH: '/bin' }, 'a guest inherits nothing of it');
  }
});

test('the watchdog hears of it until the end, twice in each period, if it is this process that it watches', async (t) => {
  t.mock.timers.enable({ apis: ['setInterval'] });
  const name = `@stasis-test-watchdog-${process.pid}`;
  using listener = new Listener(name);
  const environment = { NOTIFY_SOCKET: name, WATCHDOG_USEC: '4000000', WATCHDOG_PID: String(process.pid) };
  const watchdog = takeService({ ...environment }, fail).watchdog();
  t.mock.timers.tick(3_999);
  assert.deepEqual(listener.heard(), ['WATCHDOG=1', 'WATCHDOG=1']);
  watchdog[Symbol.dispose]();
  t.mock.timers.tick(10_000);
  using others = takeService({ ...environment, WATCHDOG_PID: '1' }, fail).watchdog();
  assert.ok(others);
  assert.deepEqual(listener.heard(), []);
});

test('time is asked for as long as it takes', (t) => {
  t.mock.timers.enable({ apis: ['setInterval'] });
  const name = `@stasis-test-time-${process.pid}`;
  using listener = new Listener(name);
  const time = takeService({ NOTIFY_SOCKET: name }, fail).takeTime();
  t.mock.timers.tick(30_000);
  assert.deepEqual(listener.heard(), Array<string>(3).fill('EXTEND_TIMEOUT_USEC=60000000'));
  time[Symbol.dispose]();
  t.mock.timers.tick(60_000);
  assert.deepEqual(listener.heard(), []);
});

test('whoever is no service of systemd tells nobody; a systemd that is gone is told of, and no more', () => {
  const warnings: string[] = [];
  const warn = (message: string) => void warnings.push(message);
  takeService({}, warn).ready();
  assert.deepEqual(warnings, []);
  takeService({ NOTIFY_SOCKET: '/nonexistent/notify' }, warn).stopping();
  assert.match(warnings.join(), /STOPPING=1.*ENOENT/);
  assert.throws(() => sendDatagram(`/${'x'.repeat(108)}`, ''), /longer than 108 bytes/);
});

test('a socket that was meant for another process is left alone, several are refused', () => {
  assert.equal(takeService({ LISTEN_PID: '1', LISTEN_FDS: '1' }, fail).socketDescriptor, undefined);
  const two = { LISTEN_PID: String(process.pid), LISTEN_FDS: '2' };
  assert.throws(() => takeService(two, fail), /hands over 2 sockets/);
});

test('the daemon serves the socket that it is handed, and says when', { timeout: 60_000 }, async () => {
  await using home = await directory();
  const { run, socket: path } = sessionPaths({ STASIS_HOME: home.path });
  await mkdir(run);
  const fd = bound(path, SOCK_STREAM);
  assert.equal(listen(fd, 16), 0);
  using listener = new Listener(join(home.path, 'notify'));
  // As systemd does it: the process that is to have the socket is known only once it is there.
  const script = 'LISTEN_FDS=1 LISTEN_PID=$$ exec "$0" "$@"';
  const command = [process.execPath, '--disable-warning=ExperimentalWarning', MAIN, 'daemon'];
  const daemon = spawn('/bin/sh', ['-c', script, ...command], {
    stdio: ['ignore', 'ignore', 'inherit', fd],
    env: {
      ...process.env,
      STASIS_HOME: home.path,
      STASIS_LOG: 'error',
      NOTIFY_SOCKET: join(home.path, 'notify'),
    },
  });
  const ended = once(daemon, 'exit');
  try {
    // Connected to before it is there: the answer comes once it is.
    const status = await new StasisClient({ connect: `unix:${path}` }).hostStatus();
    assert.equal(status.pid, daemon.pid);
    const heard = listener.heard();
    for (; !heard.includes('READY=1\nSTATUS='); await delay(10)) heard.push(...listener.heard());
    daemon.kill('SIGTERM');
    assert.deepEqual(await ended, [0, null]);
    assert.deepEqual(listener.heard(), ['STOPPING=1']);
    await access(path); // it is systemd's, for the next one
  } finally {
    daemon.kill('SIGKILL');
    await ended;
    close(fd);
  }
});
