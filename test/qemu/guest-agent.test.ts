import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { StasisError } from '../../src/errors.ts';
import { AgentReplies, GuestAgent, parseAgentReply } from '../../src/qemu/guest-agent.ts';
import { LineSplitter } from '../../src/qemu/qmp/line-splitter.ts';

// The real agent is in test/e2e/afterwards.test.ts; here is one that misbehaves in ways that it hardly can be made to.

type Answer = (command: { execute: string; arguments: { id?: number } }, socket: Socket) => void;

class FakeAgent implements AsyncDisposable {
  readonly path: string;
  readonly received: string[] = [];
  readonly #directory: string;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(directory: string, server: Server) {
    this.#directory = directory;
    this.path = join(directory, 'agent.sock');
    this.#server = server;
  }

  static async listen(answer: Answer): Promise<FakeAgent> {
    const directory = await mkdtemp(join(tmpdir(), 'stasis-agent-'));
    const server = createServer();
    const agent = new FakeAgent(directory, server);
    server.on('connection', (socket) => agent.#serve(socket, answer));
    server.listen(agent.path);
    await once(server, 'listening');
    return agent;
  }

  #serve(socket: Socket, answer: Answer): void {
    this.#sockets.add(socket);
    socket.on('error', () => socket.destroy());
    const lines = new LineSplitter(1 << 20);
    socket.on('data', (chunk: Buffer) => {
      for (const line of lines.push(chunk)) {
        this.received.push(line);
        answer(JSON.parse(line.slice(line.indexOf('{'))), socket);
      }
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    this.#server.close();
    await rm(this.#directory, { recursive: true });
  }
}

test('what is left of an old conversation is dropped, up to the answer to our own question', async () => {
  await using fake = await FakeAgent.listen(({ execute, arguments: { id } }, socket) => {
    if (execute === 'guest-sync-delimited') {
      socket.write('rest of a reply"}}\n{"return": {}}\n{"error": {"desc": "what?"}}\n');
      for (const part of ['\xff', '{"return": 7', '}\n', '\xff', `{"return": ${id}}\n`])
        socket.write(part, 'latin1');
    } else {
      socket.write('{"return": {}}\n');
    }
  });
  await using agent = await GuestAgent.connect(fake.path, { budgetMs: 10_000 });
  await agent.ping();
  assert.equal(fake.received.length, 2);
  assert.equal(fake.received[0]?.codePointAt(0), 0xfffd, 'the sentinel comes before the first command');
});

test('an agent that does not answer costs no more than its time, and an answer that comes later is nobody’s', async () => {
  await using silent = await FakeAgent.listen(() => undefined);
  await assert.rejects(GuestAgent.connect(silent.path, { budgetMs: 50 }), { code: 'timeout' });

  await using late = await FakeAgent.listen(({ execute, arguments: { id } }, socket) => {
    if (execute === 'guest-sync-delimited') socket.write(`\xff{"return": ${id}}\n`, 'latin1');
  });
  await using agent = await GuestAgent.connect(late.path, { budgetMs: 3_000 });
  await assert.rejects(agent.getTime(), { code: 'timeout' });
  await assert.rejects(agent.ping(), { code: 'qemu-failed', message: /an earlier command was not answered/ });
  await assert.rejects(GuestAgent.connect(`${late.path}.none`, { budgetMs: 50 }), {
    code: 'qemu-failed',
    message: /ENOENT/,
  });
});

test('a reply is believed only when it has the shape that it should have', async () => {
  const replies = [
    '{"return": "now"}',
    '{"return": -1}',
    '{"return": 1e400}',
    '{"error": {"class": "GenericError", "desc": "no clock"}}',
  ];
  await using fake = await FakeAgent.listen(({ execute, arguments: { id } }, socket) => {
    socket.write(
      execute === 'guest-sync-delimited'
        ? Buffer.from(`\xff{"return": ${id}}\n`, 'latin1')
        : `${replies.shift()}\n`,
    );
  });
  await using agent = await GuestAgent.connect(fake.path, { budgetMs: 10_000 });
  for (let n = 0; n < 3; n += 1)
    await assert.rejects(agent.getTime(), { code: 'qemu-failed', message: /another shape/ });
  await assert.rejects(agent.setTime(), { code: 'qemu-failed', message: /refused guest-set-time: no clock/ });
});

test('whatever bytes an agent sends, they are lines, replies or a protocol error, and at once', async () => {
  const bytes = fc.uint8Array({ maxLength: 200 });
  fc.assert(
    fc.property(
      fc.array(fc.oneof(bytes, fc.constantFrom(Buffer.from([0xff]), Buffer.from('\n')))),
      (chunks) => {
        const replies = new AgentReplies();
        for (const chunk of chunks)
          for (const line of replies.push(Buffer.from(chunk))) {
            assert.ok(!line.includes('\n'));
            try {
              parseAgentReply(line);
            } catch (error) {
              assert.ok(error instanceof SyntaxError);
            }
          }
      },
    ),
  );
  await fc.assert(
    fc.asyncProperty(bytes, async (noise) => {
      await using fake = await FakeAgent.listen((_command, socket) => void socket.end(noise));
      await assert.rejects(GuestAgent.connect(fake.path, { budgetMs: 5_000 }), StasisError);
    }),
    { numRuns: 30 },
  );
});

test('a line without end does not fill our memory', () => {
  const replies = new AgentReplies();
  assert.deepEqual([...replies.push(Buffer.alloc(4 << 20, 0x20))], [], 'before the sentinel nothing is kept');
  assert.throws(
    () => [...replies.push(Buffer.from([0xff])), ...replies.push(Buffer.alloc(2 << 20, 0x20))],
    RangeError,
  );
});
