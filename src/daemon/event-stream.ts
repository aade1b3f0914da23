/**
 * Server-sent events as a reply. Own code, since the kept plugin ends the response before an error can still be
 * answered as one: a request that fails must have its status, whatever it accepts.
 */
import { once } from 'node:events';
import type { FastifyReply } from 'fastify';

const HEARTBEAT_MS = 15_000;
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

  send(event: string, data: unknown, id?: number): void {
    this.#write(`${id === undefined ? '' : `id: ${id}\n`}event: ${event}\ndata: ${JSON.stringify(data)}\n\n`);
  }

  /** Resolves when the client is gone. */
  async closed(): Promise<void> {
    if (!this.signal.aborted) await once(this.signal, 'abort');
  }

  [Symbol.dispose](): void {
    clearInterval(this.#heartbeat);
    this.#response.end();
  }

  #write(text: string): void {
    if (this.signal.aborted) return;
    this.#response.write(text);
    if (this.#response.writableLength > MAX_BACKLOG_BYTES) this.#response.destroy();
  }
}
