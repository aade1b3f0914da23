/** A server on a unix socket that speaks as much of the contract as a test of the client needs. */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { StasisClient } from '../../src/client/index.ts';
import type { Operation } from '../../src/api/schemas.ts';
import { withShortSocketPath } from '../../src/socket-path.ts';

export interface Received {
  readonly method: string;
  readonly url: string;
  readonly accept: string | undefined;
  /** its idempotency key */
  readonly key: string | undefined;
  readonly body: unknown;
}

export type Answer = (reply: ServerResponse, request: IncomingMessage) => void;

export class FakeDaemon implements AsyncDisposable {
  readonly received: Received[] = [];
  readonly server = createServer();
  readonly socketPath: string;
  readonly #directory: string;

  private constructor(directory: string) {
    this.#directory = directory;
    this.socketPath = join(directory, 's.sock');
  }

  /**
   * @param answers one per request, in order; the last one answers all further requests
   * @param prefix of the name of its directory
   */
  static async start(answers: readonly Answer[], prefix = 'stasis-client-'): Promise<FakeDaemon> {
    const daemon = new FakeDaemon(await mkdtemp(join(tmpdir(), prefix)));
    daemon.server.on('request', (request: IncomingMessage, reply: ServerResponse) => {
      void daemon.#answer(request, reply, answers);
    });
    await withShortSocketPath(daemon.socketPath, async (path) => {
      await new Promise<void>((resolve) => {
        daemon.server.listen(path, resolve);
      });
    });
    return daemon;
  }

  get client(): StasisClient {
    return new StasisClient({ connect: `unix:${this.socketPath}` });
  }

  async #answer(request: IncomingMessage, reply: ServerResponse, answers: readonly Answer[]): Promise<void> {
    const body = await text(request);
    const answer = answers[Math.min(this.received.length, answers.length - 1)];
    this.received.push({
      method: request.method ?? '',
      url: request.url ?? '',
      accept: request.headers.accept,
      key: keyOf(request),
      body: body === '' ? undefined : JSON.parse(body),
    });
    answer?.(reply, request);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.server.closeAllConnections();
    await new Promise((resolve) => {
      this.server.close(resolve);
    });
    await rm(this.#directory, { recursive: true });
  }
}

function keyOf({ headers }: IncomingMessage): string | undefined {
  const key = headers['idempotency-key'];
  return typeof key === 'string' ? key : undefined;
}

export function json(status: number, document: unknown): Answer {
  return (reply) =>
    reply.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(document));
}

/** An event stream with these messages, which then ends, or breaks off. */
export function stream(event: string, documents: readonly object[], end: 'end' | 'break' = 'end'): Answer {
  return (reply) => {
    reply.writeHead(200, { 'content-type': 'text/event-stream' });
    const messages = documents.map((document) => `event: ${event}\ndata: ${JSON.stringify(document)}\n\n`);
    reply.write(messages.join(''), () => {
      if (end === 'end') reply.end();
      else reply.destroy();
    });
    if (documents.length === 0) reply.flushHeaders();
  };
}

/** An operation as the daemon tells it. */
export function operation(fields: Partial<Operation> = {}): Operation {
  return {
    id: 'op1',
    kind: 'save',
    guest: 'web1',
    image: 'img',
    schedule: null,
    state: 'running',
    phase: 'memory',
    bytesDone: 0,
    bytesTotal: 0,
    cancellable: true,
    createdAt: '2026-01-01T00:00:00.000Z',
    finishedAt: null,
    steps: [],
    error: null,
    result: {},
    warnings: [],
    outcomes: [],
    ...fields,
  };
}
