/** One request and its reply, whatever carries them: a unix socket under Node, `fetch` in a browser. */
import { StasisError, type ErrorBody } from '../errors.ts';
import { parseWire } from './wire.ts';

/** A reply that is held in memory as a whole has to end somewhere; a list of 10,000 images is about 20 MB. */
const LARGEST_REPLY_BYTES = 256 * 1024 * 1024;

export interface Exchange {
  readonly method: 'GET' | 'POST' | 'PUT' | 'DELETE';
  /** path and query, escaped */
  readonly path: string;
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
  /** Aborting closes the connection; whoever waits gets the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}

export interface Reply {
  readonly status: number;
  header(name: string): string | undefined;
  /** Leaving the loop early closes the connection. */
  readonly body: AsyncIterable<Uint8Array>;
}

export interface Transport {
  /** who answers there, for messages */
  readonly name: string;
  /**
   * Sends a request and resolves once the head of its reply is here, whatever it says.
   *
   * @throws `daemon-unreachable` when nobody answers or the connection broke, also while the body is read, with `details.sent`
   *   when the daemon may have got the request; the signal's reason when it is aborted
   */
  send(exchange: Exchange): Promise<Reply>;
}

/**
 * Sends a request and resolves with the reply once its head is here and says success.
 *
 * @throws the daemon's own error; as `Transport.send` does
 */
export async function send(transport: Transport, exchange: Exchange): Promise<Reply> {
  const reply = await transport.send(exchange);
  if (reply.status < 400) return reply;
  throw errorIn(reply.status, await readText(reply, exchange));
}

/** Sends a request and resolves with its JSON reply. `T` is what the contract promises. Throws as `send` does. */
export async function sendForJson<T extends object>(transport: Transport, exchange: Exchange): Promise<T> {
  return parseWire<T>(await readText(await send(transport, exchange), exchange), transport.name);
}

/** The whole body as text. Throws as `Transport.send` does; `internal` beyond 256 MiB. */
export async function readText({ body }: Pick<Reply, 'body'>, exchange: Exchange): Promise<string> {
  const decoder = new TextDecoder();
  const parts: string[] = [];
  let sizeBytes = 0;
  for await (const chunk of body) {
    sizeBytes += chunk.length;
    if (sizeBytes > LARGEST_REPLY_BYTES) {
      throw new StasisError('internal', `the reply to ${exchange.method} ${exchange.path} is too large`);
    }
    parts.push(decoder.decode(chunk, { stream: true }));
  }
  return parts.join('') + decoder.decode();
}

/** The error in a reply that says failure, also when something else than a Stasis daemon answers there. */
export function errorIn(status: number, text: string): StasisError {
  try {
    const { error } = parseWire<{ error?: ErrorBody }>(text);
    if (error !== undefined) return StasisError.fromJSON(error);
  } catch {
    // not JSON: said below, with the status
  }
  return new StasisError('internal', `the daemon answered ${status} without saying why`);
}
