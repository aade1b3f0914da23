/**
 * One HTTP exchange with a daemon. Every request has its own connection: a unix socket costs microseconds to
 * open, and nothing is left behind that someone would have to close.
 */
import { once } from 'node:events';
import type { ClientRequest, IncomingMessage, RequestOptions } from 'node:http';
import { connect, type Socket } from 'node:net';
import { addAbortSignal, type Duplex } from 'node:stream';
import { StasisError, errnoOf, messageOf, type ErrorBody } from '../errors.ts';
import { withShortSocketPath } from '../socket-path.ts';
import { formatEndpoint, type Endpoint } from './connect.ts';
import { parseWire } from './wire.ts';

// To import node:http is to evaluate all its exports, the lazy ones too: a whole browser-like HTTP client and TLS,
// 100 ms at the start of every command. Asked for like this, it stays lazy.
const { request: httpRequest } = process.getBuiltinModule('node:http');

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

/**
 * Sends a request and resolves with the response once its head is here and says success.
 *
 * @throws the daemon's own error; `daemon-unreachable` when there is none or the connection broke;
 *   the signal's reason when it is aborted
 */
export async function send(endpoint: Endpoint, exchange: Exchange): Promise<IncomingMessage> {
  let response: IncomingMessage;
  try {
    const request = await open(endpoint, exchange);
    response = await new Promise((resolve, reject) => {
      request.once('response', resolve);
      request.on('error', reject); // `on`: the connection may break again while the body is read
      request.end(exchange.body === undefined ? undefined : JSON.stringify(exchange.body));
    });
  } catch (error) {
    throw failureOf(endpoint, exchange, error);
  }
  if ((response.statusCode ?? 500) < 400) return response;
  throw errorIn(response, await readText(endpoint, exchange, response));
}

/** Sends a request and resolves with its JSON reply. `T` is what the contract promises. Throws as `send` does. */
export async function sendForJson<T>(endpoint: Endpoint, exchange: Exchange): Promise<T> {
  const response = await send(endpoint, exchange);
  const text = await readText(endpoint, exchange, response);
  try {
    return parseWire<T>(text);
  } catch (error) {
    throw new StasisError('internal', `${formatEndpoint(endpoint)} did not answer in JSON`, { cause: error });
  }
}

/**
 * Turns the connection into a raw byte stream both ways. The stream belongs to the caller, who destroys it;
 * aborting the signal destroys it too.
 *
 * @throws as `send` does; `internal` when the daemon answers without switching the protocol
 */
export async function upgrade(endpoint: Endpoint, exchange: Exchange, protocol: string): Promise<Duplex> {
  const upgraded: Exchange = {
    ...exchange,
    headers: { ...exchange.headers, connection: 'Upgrade', upgrade: protocol },
  };
  let switched: { stream: Duplex; head: Buffer } | { refusal: IncomingMessage };
  try {
    const request = await open(endpoint, upgraded);
    switched = await new Promise((resolve, reject) => {
      request.once('upgrade', (_response, stream: Duplex, head: Buffer) => resolve({ stream, head }));
      request.once('response', (refusal) => resolve({ refusal }));
      request.on('error', reject);
      request.end();
    });
  } catch (error) {
    throw failureOf(endpoint, exchange, error);
  }
  if ('refusal' in switched) {
    throw errorIn(switched.refusal, await readText(endpoint, exchange, switched.refusal));
  }
  const { stream, head } = switched;
  if (head.length > 0) stream.unshift(head);
  // The request forgets its signal once its connection is given away.
  return exchange.signal === undefined ? stream : addAbortSignal(exchange.signal, stream);
}

/** The bytes of a reply's body. Leaving the loop early closes the connection. Throws as `send` does. */
export async function* bodyOf(
  endpoint: Endpoint,
  exchange: Exchange,
  response: IncomingMessage,
): AsyncGenerator<Uint8Array, void, undefined> {
  try {
    yield* response as AsyncIterable<Uint8Array>;
  } catch (error) {
    throw failureOf(endpoint, exchange, error);
  }
}

/** The whole body as text. Throws as `send` does; `internal` beyond 256 MiB. */
export async function readText(
  endpoint: Endpoint,
  exchange: Exchange,
  response: IncomingMessage,
): Promise<string> {
  const chunks: Uint8Array[] = [];
  let sizeBytes = 0;
  for await (const chunk of bodyOf(endpoint, exchange, response)) {
    sizeBytes += chunk.length;
    if (sizeBytes > LARGEST_REPLY_BYTES) {
      throw new StasisError('internal', `the reply to ${exchange.method} ${exchange.path} is too large`);
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

async function open(endpoint: Endpoint, exchange: Exchange): Promise<ClientRequest> {
  exchange.signal?.throwIfAborted();
  const options: RequestOptions = {
    method: exchange.method,
    path: exchange.path,
    headers: {
      host: endpoint.kind === 'https' ? endpoint.url.host : 'stasis',
      accept: 'application/json',
      ...(exchange.body === undefined ? {} : { 'content-type': 'application/json' }),
      ...exchange.headers,
    },
    ...(exchange.signal === undefined ? {} : { signal: exchange.signal }),
  };
  if (endpoint.kind === 'https') {
    return process.getBuiltinModule('node:https').request(endpoint.url, options);
  }
  const socket = await connectUnix(endpoint.path, exchange.signal);
  return httpRequest({ ...options, createConnection: () => socket });
}

/**
 * A connection to the unix socket at `path`.
 *
 * @throws the system's error (`ENOENT`: no daemon ever, `ECONNREFUSED`: no daemon any more)
 */
export async function connectUnix(path: string, signal?: AbortSignal): Promise<Socket> {
  return await withShortSocketPath(path, async (shortPath) => {
    const socket = connect(shortPath);
    try {
      await once(socket, 'connect', { signal });
      return socket;
    } catch (error) {
      socket.destroy();
      throw error;
    }
  });
}

/** The error in a reply that says failure, also when something else than a Stasis daemon answers there. */
function errorIn(response: IncomingMessage, text: string): StasisError {
  try {
    const { error } = parseWire<{ error?: ErrorBody }>(text);
    if (error !== undefined) return StasisError.fromJSON(error);
  } catch {
    // not JSON: said below, with the status
  }
  return new StasisError('internal', `the daemon answered ${response.statusCode} without saying why`);
}

/** Why an exchange broke off, told to the person who asked for it. */
function failureOf(endpoint: Endpoint, exchange: Exchange, error: unknown): unknown {
  if (exchange.signal?.aborted === true) return exchange.signal.reason;
  if (error instanceof StasisError) return error;
  const where = formatEndpoint(endpoint);
  const { reason, hint } = diagnose(endpoint, errnoOf(error), error);
  return new StasisError('daemon-unreachable', `no Stasis daemon answers at ${where}: ${reason}`, {
    details: { endpoint: where, ...(hint === undefined ? {} : { hint }) },
    cause: error,
  });
}

function diagnose(
  endpoint: Endpoint,
  errno: string | undefined,
  error: unknown,
): { reason: string; hint?: string } {
  if (endpoint.kind === 'https') {
    const hint =
      'a daemon does not serve https itself yet: forward its socket, e.g. ssh -L /tmp/s.sock:SOCKET HOST';
    return { reason: messageOf(error), hint };
  }
  const known = errno === undefined ? undefined : SOCKET_DIAGNOSES[errno];
  return known ?? { reason: messageOf(error) };
}

const SOCKET_DIAGNOSES: Readonly<Record<string, { reason: string; hint?: string }>> = {
  ENOENT: { reason: 'there is no socket', hint: 'start it with: stasis daemon' },
  ECONNREFUSED: { reason: 'nobody listens on the socket any more', hint: 'start it with: stasis daemon' },
  EACCES: { reason: 'permission denied', hint: 'the socket belongs to another user' },
  ECONNRESET: { reason: 'it closed the connection before it had answered' },
  EPIPE: { reason: 'it closed the connection before it had answered' },
};
