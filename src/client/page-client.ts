/** The client of the web page: the same calls by the browser's `fetch`, under the address the page came from. */
import { PAGE_HEADER } from '../api/constants.ts';
import type { Principal } from '../api/remote.ts';
import { StasisError, messageOf } from '../errors.ts';
import { Client, guestPath } from './client.ts';
import { readText, send, sendForJson, type Exchange, type Reply, type Transport } from './exchange.ts';

/** A daemon's client in a page. */
export class PageClient extends Client {
  readonly #base: URL;
  readonly #transport: Transport;

  /** @param base the page's own address: `v1/…` is relative to it */
  constructor(base: string) {
    const url = new URL(base);
    const transport = fetchTransport(url);
    super(transport, undefined);
    this.#base = url;
    this.#transport = transport;
  }

  /** Trades a token for a session: the browser keeps a cookie for it, and nobody the token. @throws `unauthorized` */
  beginSession(token: string): Promise<Principal> {
    const headers = { authorization: `Bearer ${token}` };
    return sendForJson(this.#transport, { method: 'POST', path: '/v1/session', headers });
  }

  /** Ends it: the cookie is forgotten, and what was open by it is closed. */
  async endSession(): Promise<void> {
    const exchange = { method: 'DELETE', path: '/v1/session' } as const;
    await readText(await send(this.#transport, exchange), exchange);
  }

  /** Address of the picture that an image has of the screen. */
  screenUrl(guest: string, image: string, createdAt: string): string {
    const path = `${guestPath(guest)}/images/${encodeURIComponent(image)}/screen?at=${encodeURIComponent(createdAt)}`;
    return addressOf(this.#base, path).href;
  }

  /** Address of a WebSocket that carries a guest's serial line (`console`) or its VNC display (`display`). */
  socketUrl(guest: string, channel: 'console' | 'display'): string {
    const url = addressOf(this.#base, `${guestPath(guest)}/${channel}`);
    url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
    return url.href;
  }
}

function addressOf(base: URL, path: string): URL {
  return new URL(path.slice(1), base);
}

function fetchTransport(base: URL): Transport {
  return { name: base.origin, send: (exchange) => sendByFetch(base, exchange) };
}

async function sendByFetch(base: URL, exchange: Exchange): Promise<Reply> {
  const { method, path, body, headers, signal } = exchange;
  try {
    const response = await fetch(addressOf(base, path), {
      method,
      headers: {
        accept: 'application/json',
        [PAGE_HEADER]: '1',
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        ...headers,
      },
      body: body === undefined ? null : JSON.stringify(body),
      signal: signal ?? null,
      cache: 'no-store',
      credentials: 'same-origin',
    });
    return {
      status: response.status,
      header: (name) => response.headers.get(name) ?? undefined,
      body: bodyOf(exchange, response),
    };
  } catch (error) {
    // A browser doesn't tell whether it got through. What changes something is taken to have; what only reads needn't wait.
    throw failureOf(exchange, error, exchange.method !== 'GET');
  }
}

/** Safari's streams can't be looped over yet: a reader can. */
async function* bodyOf(exchange: Exchange, response: Response): AsyncGenerator<Uint8Array, void, undefined> {
  const reader = response.body?.getReader();
  if (reader === undefined) return;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } catch (error) {
    throw failureOf(exchange, error, true);
  } finally {
    // Of a stream that ended or broke there is nothing to cancel, and nobody to tell.
    reader.cancel().catch(() => undefined);
  }
}

function failureOf({ signal }: Exchange, error: unknown, sent: boolean): unknown {
  if (signal?.aborted === true) return signal.reason;
  return new StasisError('daemon-unreachable', `the connection to Stasis is lost: ${messageOf(error)}`, {
    details: sent ? { sent } : {},
    cause: error,
  });
}
