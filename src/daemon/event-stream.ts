/**
 * Server-sent events as a reply. Own code, since the kept plugin ends the response before an error can still be
 * answered as one: a request that fails must have its status, whatever it accepts.
 */
import { once } from 'node:events';
import type { FastifyReply } from 'fastify';

const HEARTBEAT_MS = 15_000;
/** What is told again of the past waits for a client that reads slowly, but not longer than this for one that doesn't. */
const PATIENCE_MS = 30_000;
/** A client that reads nothing while so much waits for it is let go. */
const MAX_BACKLOG_BYTES = 4 * 1024 ** 2;

export class EventStream implements Disposable {
  readonly #response;
  readonly #heartbeat: NodeJS.Timeout;
  /** aborted when the client is gone */
  readonly signal: AbortSignal;

  /** Takes over the reply and sends the headers: from here on nothing can be answered as an error. */
  constructor(reply: FastifyReply) {
    reply.hijack();
    this.#response = reply.raw;
    const gone = new AbortController();
    this.signal = gone.signal;
    this.#response.on('close', () => gone.abort());
    for (const [name, value] of Object.entries(reply.getHeaders()))
      if (value !== undefined) this.#response.setHeader(name, value);
    this.#response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
    this.#response.flushHeaders();
    this.#heartbeat = setInterval(() => this.#write(': \n\n'), HEARTBEAT_MS);
    this.#heartbeat.unref();
  }

  /** @param data not to be changed any more: it is written only once, however many streams tell it */
  send(event: string, data: object, id?: number): void {
    const message = messages.get(data) ?? messageOf(event, data, id);
    messages.set(data, message);
    this.#write(message);
  }

  /** Resolves when there is room for more, or the client is gone: one that makes no room in half a minute is let go. */
  async drained(): Promise<void> {
    if (this.signal.aborted || !this.#response.writableNeedDrain) return;
    const signal = AbortSignal.any([this.signal, AbortSignal.timeout(PATIENCE_MS)]);
    await once(this.#response, 'drain', { signal }).catch(() => this.#response.destroy());
  }

  /** Resolves when the client is gone. */
  async closed(): Promise<void> {
    if (!this.signal.aborted) await once(this.signal, 'abort');
  }

  [Symbol.dispose](): void {
    clearInterval(this.#heartbeat);
    this.#response.end();
  }

  #write(message: string | Buffer): void {
    if (this.signal.aborted) return;
    this.#response.write(message);
    if (this.#response.writableLength > MAX_BACKLOG_BYTES) this.#response.destroy();
  }
}

/** As they go over the wire, by what they tell: the same for all who are told. */
const messages = new WeakMap<object, Buffer>();

function messageOf(event: string, data: object, id: number | undefined): Buffer {
  const head = id === undefined ? '' : `id: ${id}\n`;
  return Buffer.from(`${head}event: ${event}\ndata: ${JSON.stringify(data)}\n\n`);
}
