/** What V8 says of a daemon that runs with an inspector: its memory after a collection of garbage, and what is in it. */
import { once } from 'node:events';

/** A daemon with this in its environment has one, on a port that the kernel chooses. */
export const INSPECTED = { NODE_OPTIONS: '--inspect=127.0.0.1:0' } as const;

export interface Memory {
  readonly rss: number;
  readonly heapUsed: number;
  readonly external: number;
}

/** How many objects there are of a kind, and what they occupy themselves. */
export type Census = ReadonlyMap<string, { readonly count: number; readonly bytes: number }>;

interface Message {
  readonly id?: number;
  readonly method?: string;
  readonly params?: { readonly chunk?: string };
  readonly result?: { readonly result?: { readonly value?: unknown } };
  readonly error?: { readonly message: string };
}

export class Inspector implements Disposable {
  readonly #socket: WebSocket;
  readonly #pending = new Map<number, PromiseWithResolvers<Message>>();
  #chunks: string[] = [];
  #lastId = 0;

  private constructor(socket: WebSocket) {
    this.#socket = socket;
    socket.addEventListener('message', ({ data }) => this.#receive(String(data)));
  }

  /** @param log of the daemon, in which Node says where its inspector is; the last one counts */
  static async in(log: string): Promise<Inspector> {
    const [url] = [...log.matchAll(/^Debugger listening on (ws:\S+)$/gm)].map(([, found]) => found);
    if (url === undefined) throw new Error('the daemon has no inspector');
    const socket = new WebSocket(url);
    await once(socket, 'open');
    return new Inspector(socket);
  }

  /** In bytes, with nothing in it that is only waiting to be collected. */
  async memory(): Promise<Memory> {
    await this.#ask('HeapProfiler.collectGarbage');
    const expression = 'JSON.stringify(process.memoryUsage())';
    const { result } = await this.#ask('Runtime.evaluate', { expression });
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- what Node documents
    return JSON.parse(String(result?.result?.value)) as Memory;
  }

  /** All objects, counted: takes seconds, in which the daemon stands still. */
  async census(): Promise<Census> {
    this.#chunks = [];
    await this.#ask('HeapProfiler.takeHeapSnapshot', { reportProgress: false });
    const snapshot = this.#chunks.join('');
    this.#chunks = [];
    return censusOf(snapshot);
  }

  [Symbol.dispose](): void {
    this.#socket.close();
  }

  async #ask(method: string, params: object = {}): Promise<Message> {
    this.#lastId += 1;
    const reply = Promise.withResolvers<Message>();
    this.#pending.set(this.#lastId, reply);
    this.#socket.send(JSON.stringify({ id: this.#lastId, method, params }));
    return reply.promise;
  }

  #receive(text: string): void {
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the protocol of Node's inspector
    const message = JSON.parse(text) as Message;
    if (message.method === 'HeapProfiler.addHeapSnapshotChunk')
      this.#chunks.push(message.params?.chunk ?? '');
    if (message.id === undefined) return;
    const waiting = this.#pending.get(message.id);
    this.#pending.delete(message.id);
    if (message.error === undefined) waiting?.resolve(message);
    else waiting?.reject(new Error(message.error.message));
  }
}

interface Snapshot {
  readonly snapshot: {
    readonly meta: {
      readonly node_fields: readonly string[];
      readonly node_types: readonly [readonly string[]];
    };
  };
  readonly nodes: readonly number[];
  readonly strings: readonly string[];
}

function censusOf(json: string): Census {
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- V8's own format
  const { snapshot, nodes, strings } = JSON.parse(json) as Snapshot;
  const fields = snapshot.meta.node_fields;
  const [type, name, size] = ['type', 'name', 'self_size'].map((field) => fields.indexOf(field));
  const types = snapshot.meta.node_types[0];
  const census = new Map<string, { count: number; bytes: number }>();
  for (let node = 0; node < nodes.length; node += fields.length) {
    const kind = types[nodes[node + (type ?? 0)] ?? 0] ?? '';
    const called = strings[nodes[node + (name ?? 0)] ?? 0] ?? '';
    // Every string has its own content for a name.
    const key = /string|number/.test(kind) ? `(${kind})` : `${kind} ${called.slice(0, 60)}`;
    const row = census.get(key) ?? { count: 0, bytes: 0 };
    row.count += 1;
    row.bytes += nodes[node + (size ?? 0)] ?? 0;
    census.set(key, row);
  }
  return census;
}

/** What there is more of, the most bytes first. */
export function grown(before: Census, after: Census, most: number): string[] {
  return [...after]
    .map(([kind, { count, bytes }]) => {
      const { count: had = 0, bytes: hadBytes = 0 } = before.get(kind) ?? {};
      return { kind, more: count - had, moreBytes: bytes - hadBytes };
    })
    .filter(({ moreBytes }) => moreBytes > 0)
    .toSorted((a, b) => b.moreBytes - a.moreBytes)
    .slice(0, most)
    .map(
      ({ kind, more, moreBytes }) => `${(moreBytes / 1024).toFixed(0)} KiB more in ${more} more of ${kind}`,
    );
}
