/**
 * Clients of a daemon, as many as are asked for: event streams that read all they get, and requests at a steady rate. A request's
 * time counts from when it was due, not from when there was time to send it: a daemon that stops for a second makes all wait that were
 * due in it.
 */
import { once } from 'node:events';
import { Agent, request, type IncomingMessage } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';

export interface ClientsTask {
  readonly socket: string;
  readonly streams: number;
  /** requests a second */
  readonly rate: number;
  readonly guests: number;
}

export interface Waits {
  /** in ms, by kind */
  readonly requests: Record<string, number[]>;
  readonly failed: number;
  /** 10 s after the last one was sent: a daemon that can't keep up */
  readonly unanswered: number;
  /** streams that ended before they were told to */
  readonly broken: number;
  readonly messages: number;
}

const TICK_MS = 5;
const PATIENCE_MS = 10_000;
/** Of so many requests, one of all images: 20 MB each. */
const LISTS = 2000;

class Generator {
  readonly #task: ClientsTask;
  readonly #agent: Agent;
  readonly #waits = {
    requests: {} as Record<string, number[]>,
    failed: 0,
    unanswered: 0,
    broken: 0,
    messages: 0,
  };
  readonly #streams: IncomingMessage[] = [];
  #sent = 0;
  #stopped = false;

  constructor(task: ClientsTask) {
    this.#task = task;
    this.#agent = new Agent({ keepAlive: true, maxSockets: 64 });
  }

  async open(): Promise<void> {
    for (let left = this.#task.streams; left > 0; left -= 50)
      await Promise.all(Array.from({ length: Math.min(50, left) }, () => this.#follow()));
  }

  /** Sends what is due, until it is stopped, and resolves when all has been answered. */
  async run(stopped: Promise<unknown>): Promise<Waits> {
    const begin = performance.now();
    const under: Promise<void>[] = [];
    const timer = setInterval(() => {
      const due = ((performance.now() - begin) * this.#task.rate) / 1000;
      for (; this.#sent < due; this.#sent += 1)
        under.push(this.#ask(this.#sent, begin + (this.#sent * 1000) / this.#task.rate));
    }, TICK_MS);
    await stopped;
    clearInterval(timer);
    await Promise.race([Promise.all(under), delay(PATIENCE_MS)]);
    this.#waits.unanswered =
      under.length - this.#waits.failed - Object.values(this.#waits.requests).flat().length;
    this.#stopped = true;
    for (const stream of this.#streams) stream.destroy();
    this.#agent.destroy();
    return this.#waits;
  }

  async #follow(): Promise<void> {
    const asked = request({
      socketPath: this.#task.socket,
      path: '/v1/events?operations=true',
      headers: { accept: 'text/event-stream' },
      agent: false,
    });
    asked.end();
    const [reply]: IncomingMessage[] = await once(asked, 'response');
    if (reply === undefined) throw new Error('an answer has a head');
    this.#streams.push(reply);
    reply.on('data', (chunk: Buffer) => (this.#waits.messages += chunk.includes('data:') ? 1 : 0));
    reply.on('error', () => undefined);
    reply.on('close', () => (this.#waits.broken += this.#stopped ? 0 : 1));
  }

  async #ask(number: number, dueMs: number): Promise<void> {
    const [kind, path] = this.#choose(number);
    try {
      const asked = request({ socketPath: this.#task.socket, path, agent: this.#agent });
      asked.end();
      const [reply]: IncomingMessage[] = await once(asked, 'response');
      if (reply?.statusCode !== 200) this.#waits.failed += 1;
      if (reply !== undefined) await once(reply.resume(), 'end'); // only that it comes counts
      (this.#waits.requests[kind] ??= []).push(performance.now() - dueMs);
    } catch {
      this.#waits.failed += 1;
    }
  }

  #choose(number: number): readonly [kind: string, path: string] {
    const guest = `/v1/guests/guest${number % this.#task.guests}`;
    if (number % LISTS === LISTS / 2) return ['all images', '/v1/images'];
    if (number % 40 === 7) return ['all guests', '/v1/overview'];
    if (number % 10 === 1) return ['an image list', `${guest}/images`];
    if (number % 10 === 2) return ['a guest with its images', `${guest}/overview`];
    if (number % 5 === 3) return ['the host', '/v1/host'];
    if (number % 5 === 4) return ['an image', `${guest}/images/hourly-${number % 50}`];
    return ['a guest', guest];
  }
}

// oxlint-disable-next-line typescript/no-unsafe-type-assertion -- it is what clients.ts starts it with
const generator = new Generator(JSON.parse(process.argv[2] ?? '') as ClientsTask);
await generator.open();
process.send?.('open');
process.send?.(await generator.run(once(process, 'message')));
process.disconnect();
