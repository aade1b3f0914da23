import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { LineSplitter } from '../../src/qemu/qmp/line-splitter.ts';
import { QmpClient, qmpErrorDescription } from '../../src/qemu/qmp/client.ts';
import { withShortSocketPath } from '../../src/socket-path.ts';

const GREETING =
  '{"QMP": {"version": {"qemu": {"micro": 2, "minor": 0, "major": 10}, "package": ""}, "capabilities": []}}';

type Reply = (command: { execute: string; id: number }, send: (line: string) => void, socket: Socket) => void;

/** A QMP server that answers as told; it accepts the negotiation by itself. */
class FakeQemu implements AsyncDisposable {
  readonly path: string;
  readonly #directory: string;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(directory: string, path: string, server: Server) {
    this.#directory = directory;
    this.path = path;
    this.#server = server;
  }

  static async listen(reply: Reply, subdirectory = ''): Promise<FakeQemu> {
    const directory = await mkdtemp(join(tmpdir(), 'stasis-qmp-'));
    await mkdir(join(directory, subdirectory), { recursive: true });
    const server = createServer();
    const fake = new FakeQemu(directory, join(directory, subdirectory, 'qmp.sock'), server);
    server.on('connection', (socket) => fake.#serve(socket, reply));
    await withShortSocketPath(fake.path, async (path) => {
      server.listen(path);
      await once(server, 'listening');
    });
    return fake;
  }

  #serve(socket: Socket, reply: Reply): void {
    this.#sockets.add(socket);
    socket.on('error', () => socket.destroy());
    const send = (line: string): void => void socket.write(`${line}\n`);
    const lines = new LineSplitter(1 << 20);
    send(GREETING);
    socket.on('data', (chunk: Buffer) => {
      for (const line of lines.push(chunk)) {
        const command: { execute: string; id: number } = JSON.parse(line);
        if (command.execute === 'qmp_capabilities') send(`{"return": {}, "id": ${command.id}}`);
        else reply(command, send, socket);
      }
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    this.#server.close();
    await rm(this.#directory, { recursive: true });
  }
}

const event = (name: string, seconds: number, data = '{}'): string =>
  `{"timestamp": {"seconds": ${seconds}, "microseconds": 250000}, "event": "${name}", "data": ${data}}`;

test('replies find their commands, in whatever order they come', async () => {
  const held: number[] = [];
  await using qemu = await FakeQemu.listen(({ id }, send) => {
    if (held.push(id) < 2) return;
    for (const each of held.toReversed()) send(`{"return": {"UUID": "${each}"}, "id": ${each}}`);
  });
  await using qmp = await QmpClient.connect(qemu.path);
  const replies = await Promise.all([qmp.execute('query-uuid'), qmp.execute('query-uuid')]);
  assert.deepEqual(
    replies.map(({ UUID }) => UUID),
    held.map(String),
  );
  assert.deepEqual(qmp.version, { major: 10, minor: 0, micro: 2 });
});

test("an error tells the command and QEMU's own words", async () => {
  await using qemu = await FakeQemu.listen(({ id }, send) => {
    send(`{"error": {"class": "GenericError", "desc": "no way"}, "id": ${id}}`);
  });
  await using qmp = await QmpClient.connect(qemu.path);
  await assert.rejects(qmp.execute('cont'), (error) => {
    assert.equal(qmpErrorDescription(error), 'no way');
    return true;
  });
  await assert.rejects(qmp.execute('cont'), {
    code: 'qemu-failed',
    details: { command: 'cont', class: 'GenericError', desc: 'no way' },
  });
});

test('what QEMU never answers, and events without end, are not believed', async () => {
  await using qemu = await FakeQemu.listen(({ execute, id }, send) => {
    if (execute === 'query-status') send(`{"return": {"status": 7}, "id": ${id}}`);
    else for (let left = 11_000; left > 0; left -= 1) send(event('STOP', 1));
  });
  await using qmp = await QmpClient.connect(qemu.path);
  await assert.rejects(qmp.execute('query-status'), {
    code: 'qemu-failed',
    details: { command: 'query-status' },
  });
  using watch = qmp.watch('STOP');
  await assert.rejects(qmp.execute('stop'), { code: 'qemu-failed', message: /10000 events STOP at once/ });
  assert.equal(watch.drain().length, 10_000);
});

test('an event that comes in one piece with the reply before it is not lost', async () => {
  await using qemu = await FakeQemu.listen(({ id }, send) => {
    send(`{"return": {}, "id": ${id}}\n${event('RESUME', 4)}\n${event('STOP', 5)}`);
  });
  await using qmp = await QmpClient.connect(qemu.path);
  using watch = qmp.watch('STOP');
  await qmp.execute('stop');
  const stop = await watch.next();
  assert.equal(stop.timestampMs, 5_250);
});

test('a watch hands out events in their order, once, and only those of its names', async () => {
  await using qemu = await FakeQemu.listen(({ id }, send) => {
    for (const status of ['setup', 'active', 'completed'])
      send(event('MIGRATION', 1, `{"status": "${status}"}`));
    send(`${event('RESET', 2)}\n{"return": {}, "id": ${id}}`);
  });
  await using qmp = await QmpClient.connect(qemu.path);
  const heard: string[] = [];
  const silence = qmp.on('RESET', ({ event: name }) => heard.push(name));
  using watch = qmp.watch('MIGRATION');
  await qmp.execute('stop');
  silence();
  assert.equal((await watch.next(({ data }) => data.status === 'active')).data.status, 'active');
  assert.equal((await watch.next()).data.status, 'completed');
  await assert.rejects(watch.next(undefined, { timeoutMs: 5 }), { code: 'timeout' });
  assert.deepEqual(heard, ['RESET']);
});

test('the end of the connection fails every command and every watch', async () => {
  await using qemu = await FakeQemu.listen((_command, _send, socket) => socket.destroy());
  await using qmp = await QmpClient.connect(qemu.path);
  using watch = qmp.watch('STOP');
  const waiting = assert.rejects(watch.next(), { code: 'guest-crashed' });
  await assert.rejects(qmp.execute('cont'), { code: 'guest-crashed' });
  await waiting;
  assert.equal((await qmp.closed).code, 'guest-crashed');
  await assert.rejects(qmp.execute('cont'), { code: 'guest-crashed' });
  await assert.rejects(qmp.watch('STOP').next(), { code: 'guest-crashed' });
});

test('closing it ourselves is told apart from a crash', async () => {
  await using qemu = await FakeQemu.listen(() => undefined);
  const qmp = await QmpClient.connect(qemu.path);
  const pending = assert.rejects(qmp.execute('cont'), { code: 'interrupted' });
  await qmp.close();
  await pending;
  assert.equal((await qmp.closed).code, 'interrupted');
});

test('a command can be given up: by a signal, after a time', async () => {
  await using qemu = await FakeQemu.listen(() => undefined);
  await using qmp = await QmpClient.connect(qemu.path);
  await assert.rejects(qmp.execute('cont', undefined, { timeoutMs: 5 }), { code: 'timeout' });
  const abort = new AbortController();
  const given = assert.rejects(qmp.execute('cont', undefined, { signal: abort.signal }), {
    code: 'cancelled',
  });
  abort.abort();
  await given;
  await assert.rejects(qmp.execute('cont', undefined, { signal: abort.signal }), { code: 'cancelled' });
});

for (const [what, line] of [
  ['no JSON', 'hello'],
  ['no object', '[1, 2]'],
  ['an event without a time', '{"event": "STOP"}'],
  ['a reply without an id', '{"return": {}}'],
] as const) {
  test(`a server that breaks the protocol is left: ${what}`, async () => {
    await using qemu = await FakeQemu.listen((_command, send) => send(line));
    await using qmp = await QmpClient.connect(qemu.path);
    await assert.rejects(qmp.execute('cont'), { code: 'qemu-failed', message: /broke the QMP protocol/ });
  });
}

test('a line without end does not fill our memory', () => {
  const lines = new LineSplitter(1000);
  assert.deepEqual([...lines.push(Buffer.from('ab\ncd'))], ['ab']);
  assert.deepEqual([...lines.push(Buffer.from('é\n\n'))], ['cdé', '']);
  assert.throws(() => [...lines.push(Buffer.alloc(1001, 'x'))], RangeError);
});

test('a socket path longer than the system allows can be connected to', async () => {
  const long = Array.from({ length: 4 }, () => 'directory-'.repeat(6)).join('/');
  await using qemu = await FakeQemu.listen(({ id }, send) => send(`{"return": {}, "id": ${id}}`), long);
  assert.ok(Buffer.byteLength(qemu.path) > 107, 'longer than a socket address can be');
  await using qmp = await QmpClient.connect(qemu.path);
  await qmp.execute('cont');
});

test('nobody there is told by the system error', async () => {
  await assert.rejects(QmpClient.connect('/nonexistent/qmp.sock'), { code: 'ENOENT' });
});
