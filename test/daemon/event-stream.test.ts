/** What many and slow clients of an event stream get, and what they cost. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createConnection } from 'node:net';
import { join } from 'node:path';
import { mkdtempDisposable } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { test } from 'node:test';
import Fastify from 'fastify';
import { EventStream } from '../../src/daemon/event-stream.ts';

const EVENT = { id: 1, message: 'x'.repeat(1000) };
/** Ten times what a client may leave unread, in KB. */
const MANY = 40_000;

/** A server that tells each client of a stream `MANY` events, by `tell`. */
async function serverOf(tell: (stream: EventStream) => Promise<void>) {
  const directory = await mkdtempDisposable(join(tmpdir(), 'stasis-streams-'));
  const server = Fastify({ forceCloseConnections: true });
  server.get('/', async (_request, reply) => {
    using stream = new EventStream(reply);
    await tell(stream);
  });
  const path = join(directory.path, 'socket');
  await server.listen({ path });
  return {
    connect: () => {
      const socket = createConnection(path);
      socket.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
      return socket;
    },
    async [Symbol.asyncDispose]() {
      await server.close();
      await directory.remove();
    },
  };
}

test('a client that reads nothing is let go, and what waited for it with it', async () => {
  const told = Promise.withResolvers<number>();
  await using server = await serverOf(async (stream) => {
    let count = 0;
    for (; count < MANY && !stream.signal.aborted; count += 1) {
      stream.send('event', { ...EVENT, id: count }, count);
      if (count % 100 === 0) await new Promise(setImmediate);
    }
    told.resolve(count);
  });
  const client = server.connect();
  client.on('error', () => undefined);
  await once(client, 'connect');
  client.pause();
  assert.ok((await told.promise) < MANY / 5, 'it is let go long before all was written');
  client.destroy();
});

test('a client that reads is waited for when it is told of the past', async () => {
  const past = 10_000;
  await using server = await serverOf(async (stream) => {
    for (let count = 0; count < past && !stream.signal.aborted; count += 1) {
      stream.send('event', EVENT, EVENT.id);
      if (count % 1000 === 0) await stream.drained();
    }
  });
  let bytes = 0;
  for await (const chunk of server.connect().unref()) {
    bytes += Buffer.isBuffer(chunk) ? chunk.length : 0;
    if (bytes > past * JSON.stringify(EVENT).length) break;
  }
  assert.ok(bytes > past * 1000, 'all of it came');
});
