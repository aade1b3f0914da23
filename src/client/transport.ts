/**
 * One HTTP exchange with a daemon. Every request has its own connection: a unix socket costs microseconds to
 * open, and nothing is left behind that someone would have to close.
 */
import { once } from 'node:events';
import type { ClientRequest, IncomingMessage, RequestOptions } from 'node:http';
import { connect, type Socket } from 'node:net';
import { addAbortSignal, type Duplex } from 'node:stream';
import { StasisError, errnoOf, messageOf } from '../errors.ts';
import { withShortSocketPath } from '../socket-path.ts';
import { formatEndpoint, type Endpoint } from './connect.ts';
import { errorIn, readText, type Exchange, type Reply, type Transport } from './exchange.ts';

// To import node:http is to evaluate all its exports, the lazy ones too: a whole browser-like HTTP client and TLS,
// 100 ms at the start of every command. Asked for like this, it stays lazy.
const { request: httpRequest } = process.getBuiltinModule('node:http');

/** Exchanges with the daemon at an endpoint, by Node's own HTTP. */
export function nodeTransport(endpoint: Endpoint): Transport {
  return {
    name: formatEndpoint(endpoint),
    send: (exchange) => sendByNode(endpoint, exchange),
  };
}

async function sendByNode(endpoint: Endpoint, exchange: Exchange): Promise<Reply> {
  try {
    const request = await open(endpoint, exchange);
    const response = await new Promise<IncomingMessage>((resolve, reject) => {
      request.once('response', resolve);
      request.on('error', reject); // `on`: the connection may break again while the body is read
      request.end(exchange.body === undefined ? undefined : JSON.stringify(exchange.body));
    });
    return replyOf(endpoint, exchange, response);
  } catch (error) {
    throw failureOf(endpoint, exchange, error);
  }
}

function replyOf(endpoint: Endpoint, exchange: Exchange, response: IncomingMessage): Reply {
  return {
    status: response.statusCode ?? 500,
    header: (name) => {
      const value = response.headers[name];
      return typeof value === 'string' ? value : undefined;
    },
    body: bodyOf(endpoint, exchange, response),
  };
}

/**
 * Turns the connection into a raw byte stream both ways. The stream belongs to the caller, who destroys it;
 * aborting the signal destroys it too.
 *
 * @throws the daemon's own error; as `Transport.send` does; `internal` when the daemon answers without switching the protocol
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
    const refusal = replyOf(endpoint, exchange, switched.refusal);
    throw errorIn(refusal.status, await readText(refusal, exchange));
  }
  const { stream, head } = switched;
  if (head.length > 0) stream.unshift(head);
  // The request forgets its signal once its connection is given away.
  return exchange.signal === undefined ? stream : addAbortSignal(exchange.signal, stream);
}

async function* bodyOf(
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

async function open(endpoint: Endpoint, exchange: Exchange): Promise<ClientRequest> {
  exchange.signal?.throwIfAborted();
  const options: RequestOptions = {
    method: exchange.method,
    path: exchange.path,
    headers: {
      host: endpoint.kind === 'https' ? endpoint.url.host : 'stasis',
      accept: 'application/json',
      ...(exchange.body === undefined ? {} : { 'content-type': 'application/json' }),
      ...(endpoint.kind === 'https' && endpoint.token !== undefined
        ? { authorization: `Bearer ${endpoint.token}` }
        : {}),
      ...exchange.headers,
    },
    ...(exchange.signal === undefined ? {} : { signal: exchange.signal }),
  };
  if (endpoint.kind === 'https') {
    const { url, authority, identity } = endpoint;
    return process.getBuiltinModule('node:https').request(url, {
      ...options,
      ...(authority === undefined ? {} : { ca: authority }),
      ...(identity === undefined ? {} : { cert: identity.certificate, key: identity.key }),
      minVersion: 'TLSv1.3',
      agent: false,
    });
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
    const known = errno === undefined ? undefined : TLS_DIAGNOSES[errno];
    return known ?? { reason: messageOf(error) };
  }
  const known = errno === undefined ? undefined : SOCKET_DIAGNOSES[errno];
  return known ?? { reason: messageOf(error) };
}

const UNKNOWN_AUTHORITY = {
  reason: 'nobody whom this host trusts vouches for it',
  hint: 'give `stasis login` the fingerprint that `stasis remote status` tells on the host of the daemon',
};
const TLS_DIAGNOSES: Readonly<Record<string, { reason: string; hint?: string }>> = {
  SELF_SIGNED_CERT_IN_CHAIN: UNKNOWN_AUTHORITY,
  DEPTH_ZERO_SELF_SIGNED_CERT: UNKNOWN_AUTHORITY,
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: UNKNOWN_AUTHORITY,
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: UNKNOWN_AUTHORITY,
  ERR_TLS_CERT_ALTNAME_INVALID: {
    reason: 'its certificate is for other names',
    hint: 'connect to one of those, or add this one with `stasis remote setup --name` on the host of the daemon',
  },
  ECONNREFUSED: { reason: 'nobody listens there', hint: 'on the host of the daemon: stasis remote setup' },
};

const SOCKET_DIAGNOSES: Readonly<Record<string, { reason: string; hint?: string }>> = {
  ENOENT: { reason: 'there is no socket', hint: 'start it with: stasis daemon' },
  ECONNREFUSED: { reason: 'nobody listens on the socket any more', hint: 'start it with: stasis daemon' },
  EACCES: { reason: 'permission denied', hint: 'the socket belongs to another user' },
  ECONNRESET: { reason: 'it closed the connection before it had answered' },
  EPIPE: { reason: 'it closed the connection before it had answered' },
};
