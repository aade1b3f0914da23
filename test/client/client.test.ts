import assert from 'node:assert/strict';
import { once } from 'node:events';
import { describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { StasisClient, StasisError, type Operation } from '../../src/client/index.ts';
import { FakeDaemon, json, operation, stream } from '../support/fake-daemon.ts';

const guest = { name: 'web1', state: 'running' };
// oxlint-disable-next-line typescript/no-unsafe-type-assertion
const done = operation({ state: 'done', result: { guest: guest as never } });

describe('a request', () => {
  test('that asks for a list is one exchange', async () => {
    await using daemon = await FakeDaemon.start([json(200, [guest])]);
    assert.deepEqual(await daemon.client.listGuests(), [guest]);
    assert.deepEqual(daemon.received, [
      { method: 'GET', url: '/v1/guests', accept: 'application/json', key: undefined, body: undefined },
    ]);
  });

  test('that only reads is sent again when its connection broke, also within the reply', async () => {
    await using daemon = await FakeDaemon.start([
      (reply) => reply.destroy(),
      (reply) => reply.writeHead(200, { 'content-length': 100 }).write('[', () => reply.destroy()),
      json(200, [guest]),
    ]);
    assert.deepEqual(await daemon.client.listGuests(), [guest]);
    assert.equal(daemon.received.length, 3);
  });

  test('escapes the names it is about', async () => {
    await using daemon = await FakeDaemon.start([json(200, {})]);
    await daemon.client.getSaveImageInfo('a/b', '../x?y');
    assert.equal(daemon.received[0]?.url, '/v1/guests/a%2Fb/images/..%2Fx%3Fy');
  });

  test('rejects with the error of the daemon', async () => {
    const error = {
      code: 'image-not-found',
      message: 'no such image',
      guest: 'web1',
      image: 'x',
      details: { a: 1 },
    };
    await using daemon = await FakeDaemon.start([json(404, { error })]);
    await assert.rejects(daemon.client.getSaveImageInfo('web1', 'x'), (thrown: unknown) => {
      assert.ok(thrown instanceof StasisError);
      assert.deepEqual(thrown.toJSON(), error);
      return true;
    });
  });

  test('says so when what it made has gone before it could be looked at', async () => {
    await using daemon = await FakeDaemon.start([
      stream('operation', [operation({ state: 'done', image: 'default', result: {} })]),
    ]);
    await assert.rejects(daemon.client.createSaveImage('web1'), {
      code: 'image-not-found',
      image: 'default',
      message: /save of web1 is done, but its image is not there any more/,
    });
  });

  test('says so when something else answers', async () => {
    await using daemon = await FakeDaemon.start([(reply) => reply.writeHead(502).end('<html>')]);
    await assert.rejects(daemon.client.listGuests(), { code: 'internal', message: /502/ });
  });

  test('says where no daemon answers, and what to do', async () => {
    const client = new StasisClient({ connect: 'unix:/nonexistent/s.sock' });
    await assert.rejects(client.listGuests(), {
      code: 'daemon-unreachable',
      message: /\/nonexistent\/s\.sock/,
    });
  });

  test('reaches a socket whose path is longer than an address', async () => {
    await using daemon = await FakeDaemon.start([json(200, [])], 'long'.repeat(40));
    assert.deepEqual(await daemon.client.listGuests(), []);
  });

  test('ends with the reason of its signal', async () => {
    await using daemon = await FakeDaemon.start([() => {}]);
    const controller = new AbortController();
    const request = daemon.client.listGuests({ signal: controller.signal });
    await once(daemon.server, 'request');
    controller.abort(new Error('enough'));
    await assert.rejects(request, /enough/);
  });
});

describe('a mutation', () => {
  test('is one exchange, tells every step and resolves with its result', async () => {
    await using daemon = await FakeDaemon.start([stream('operation', [operation(), done])]);
    const states: Operation['state'][] = [];
    const result = await daemon.client.start(
      'web1',
      { fresh: true },
      { onProgress: ({ state }) => states.push(state) },
    );
    assert.equal(result.name, 'web1');
    assert.deepEqual(states, ['running', 'done']);
    const [{ key, ...received } = {}, ...more] = daemon.received;
    assert.deepEqual(received, {
      ...{ method: 'POST', url: '/v1/guests/web1/start', accept: 'text/event-stream', body: { fresh: true } },
    });
    assert.match(key ?? '', /^[\da-f-]{36}$/);
    assert.deepEqual(more, []);
  });

  test('of the default image names none', async () => {
    await using daemon = await FakeDaemon.start([stream('operation', [done])]);
    await daemon.client.restoreSaveImage('web1', 'default', { delete: true });
    assert.deepEqual(daemon.received[0]?.body, { delete: true });
  });

  test('rejects with the error of its operation', async () => {
    const error = { code: 'not-capturable' as const, message: 'disk root is …', guest: 'web1' };
    await using daemon = await FakeDaemon.start([
      stream('operation', [operation({ state: 'failed', error })]),
    ]);
    await assert.rejects(daemon.client.createSaveImage('web1'), { code: 'not-capturable', guest: 'web1' });
  });

  test('rejects when it was refused, and is not repeated', async () => {
    await using daemon = await FakeDaemon.start([json(409, { error: { code: 'busy', message: 'busy' } })]);
    await assert.rejects(daemon.client.stop('web1'), { code: 'busy' });
    assert.equal(daemon.received.length, 1);
  });

  test('resolves with the operation when nobody waits', async () => {
    await using daemon = await FakeDaemon.start([json(202, operation())]);
    const begun: Operation = await daemon.client.createSaveImage('web1', { live: true }, { wait: false });
    assert.equal(begun.id, 'op1');
    assert.equal(daemon.received[0]?.accept, 'application/json');
  });

  test('is watched on after the stream broke, without being sent twice', async () => {
    await using daemon = await FakeDaemon.start([
      stream('operation', [operation()], 'break'),
      (reply) => reply.destroy(),
      stream('operation', [operation(), done]),
    ]);
    let revivals = 0;
    const client = new StasisClient({
      connect: `unix:${daemon.socketPath}`,
      revive: () => Promise.resolve(void (revivals += 1)),
    });
    assert.equal((await client.start('web1')).name, 'web1');
    assert.deepEqual(
      daemon.received.map(({ method, url }) => `${method} ${url}`),
      ['POST /v1/guests/web1/start', 'GET /v1/operations/op1', 'GET /v1/operations/op1'],
    );
    assert.equal(revivals, 2);
  });

  test('is known by its location before the first message', async () => {
    const headOnly = { 'content-type': 'text/event-stream', location: '/v1/operations/op9' };
    await using daemon = await FakeDaemon.start([
      (reply) => reply.writeHead(200, headOnly).end(),
      stream('operation', [done]),
    ]);
    await daemon.client.start('web1');
    assert.equal(daemon.received[1]?.url, '/v1/operations/op9');
  });

  test('that broke off unanswered is sent again with its key, and others have others', async () => {
    await using daemon = await FakeDaemon.start([
      (reply) => reply.destroy(),
      (reply) => reply.destroy(),
      stream('operation', [done]),
    ]);
    await daemon.client.start('web1');
    await daemon.client.start('web1');
    const [first, ...keys] = daemon.received.map(({ key }) => key);
    assert.equal(first?.length, 36);
    assert.deepEqual(keys.slice(0, 2), [first, first]);
    assert.notEqual(keys[2], first);
  });

  test('for which no operation is recorded is sent once', async () => {
    await using daemon = await FakeDaemon.start([(reply) => reply.destroy()]);
    await assert.rejects(daemon.client.revokeCredential('alice'), { code: 'daemon-unreachable' });
    await assert.rejects(daemon.client.cancelOperation('op1'), { code: 'daemon-unreachable' });
    assert.deepEqual(
      daemon.received.map(({ key }) => key),
      [undefined, undefined],
    );
  });

  test('left by its signal goes on in the daemon', async () => {
    await using daemon = await FakeDaemon.start([
      (reply) => {
        reply.writeHead(200, { 'content-type': 'text/event-stream' });
        reply.write(`event: operation\ndata: ${JSON.stringify(operation())}\n\n`);
      },
    ]);
    const controller = new AbortController();
    const onProgress = () => controller.abort(new Error('left'));
    await assert.rejects(daemon.client.start('web1', {}, { onProgress, signal: controller.signal }), /left/);
    assert.equal(daemon.received.length, 1);
  });
});

describe('events', () => {
  test('come once each, also across a break', async () => {
    const event = (id: number) => ({ id, message: `event ${id}` });
    await using daemon = await FakeDaemon.start([
      stream('event', [event(1), event(0), event(2)], 'break'),
      stream('event', [event(2), event(3)]),
    ]);
    const ids: number[] = [];
    for await (const { id } of daemon.client.events({ guest: 'web1' })) {
      ids.push(id);
      if (id === 3) break;
    }
    assert.deepEqual(ids, [1, 0, 2, 3]);
    assert.deepEqual(
      daemon.received.map(({ url }) => url),
      ['/v1/events?guest=web1', '/v1/events?guest=web1&since=2'],
    );
  });
});

describe('the console', () => {
  test('is a byte stream both ways, from its first byte', async () => {
    await using daemon = await FakeDaemon.start([]);
    daemon.server.on('upgrade', (request, socket) => {
      assert.equal(request.headers.upgrade, 'stasis-console');
      socket.write(
        'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: stasis-console\r\n\r\nlogin: ',
      );
      socket.on('data', (bytes: Buffer) => socket.end(`[${bytes.toString()}]`));
    });
    await using console = await daemon.client.openConsole('web1');
    let heard = '';
    console.on('data', (bytes: Buffer) => {
      heard += bytes.toString();
    });
    console.write('root');
    await once(console, 'end');
    assert.equal(heard, 'login: [root]');
  });

  test('that is refused rejects with the reason', async () => {
    await using daemon = await FakeDaemon.start([
      json(409, { error: { code: 'invalid-state', message: 'stopped' } }),
    ]);
    await assert.rejects(daemon.client.openConsole('web1'), { code: 'invalid-state' });
  });

  test('ends when its signal is aborted', async () => {
    await using daemon = await FakeDaemon.start([]);
    daemon.server.on('upgrade', (_request, socket) => {
      socket
        .resume()
        .on('end', () => socket.end())
        .on('error', () => socket.destroy());
      socket.write(
        'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: stasis-console\r\n\r\n',
      );
    });
    const controller = new AbortController();
    const console = await daemon.client.openConsole('web1', { signal: controller.signal });
    const failed = once(console, 'error');
    await delay(1);
    controller.abort();
    await failed;
    assert.ok(console.destroyed);
  });
});
