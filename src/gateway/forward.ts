/** Requests of the page, handed on to the daemon as they are, but for what is between the browser and us. */
import { request as httpRequest, type IncomingMessage, type ServerResponse } from 'node:http';
import { pipeline } from 'node:stream/promises';
import type { Duplex } from 'node:stream';
import type { Socket } from 'node:net';
import { WEB_SESSION_HEADER } from '../api/constants.ts';
import { connectUnix } from '../client/transport.ts';
import { StasisError, messageOf } from '../errors.ts';

/** Neither cookie nor origin: the daemon knows its callers by the socket. */
const REQUEST_HEADERS = [
  'accept',
  'content-type',
  'content-length',
  'last-event-id',
  'idempotency-key',
] as const;
const REPLY_HEADERS = ['content-type', 'content-length', 'location', 'cache-control'] as const;
const CHANNEL_HEADERS = [
  'upgrade',
  'connection',
  'sec-websocket-key',
  'sec-websocket-version',
  'sec-websocket-protocol',
];

/** Where a request goes on to. */
interface Onward {
  /** path of its socket */
  readonly daemon: string;
  /** below the daemon's root, such as `/v1/guests` */
  readonly path: string;
  /** name of the session that it is for: the daemon's audit trail tells it */
  readonly session: string;
}

/**
 * @throws StasisError `daemon-unreachable`
 */
export async function forward(
  { daemon, path, session }: Onward,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const socket = await connectDaemon(daemon);
  const onward = httpRequest({
    createConnection: () => socket,
    method: request.method,
    path,
    headers: { host: 'stasis', [WEB_SESSION_HEADER]: session, ...picked(request, REQUEST_HEADERS) },
  });
  response.on('close', () => onward.destroy());
  const reply = new Promise<IncomingMessage>((resolve, reject) => {
    onward.once('response', resolve);
    onward.on('error', (error) => reject(unreachable(error, { sent: true })));
  });
  reply.catch(() => undefined); // the pipeline may fail first, of the same cause
  await pipeline(request, onward);
  const answer = await reply;
  response.writeHead(answer.statusCode ?? 502, picked(answer, REPLY_HEADERS));
  response.flushHeaders();
  await pipeline(answer, response);
}

/** The same for what becomes a WebSocket: the handshake goes to the daemon, and from then on only bytes. */
export async function forwardChannel(
  { daemon, path, session }: Onward,
  request: IncomingMessage,
  client: Duplex,
): Promise<void> {
  const socket = await connectDaemon(daemon);
  socket.on('error', () => socket.destroy());
  socket.on('close', () => client.destroy());
  client.on('close', () => socket.destroy());
  const own = { host: 'stasis', [WEB_SESSION_HEADER]: session };
  const lines = Object.entries({ ...own, ...picked(request, CHANNEL_HEADERS) }).map(
    ([name, value]) => `${name}: ${value}\r\n`,
  );
  socket.write(`GET ${path} HTTP/1.1\r\n${lines.join('')}\r\n`);
  socket.pipe(client).pipe(socket);
}

function picked({ headers }: IncomingMessage, names: readonly string[]): Record<string, string> {
  const found: Record<string, string> = {};
  for (const name of names) {
    const value = headers[name];
    if (typeof value === 'string') found[name] = value;
  }
  return found;
}

/** The daemon may have been started again since: each request has its own connection. */
async function connectDaemon(path: string): Promise<Socket> {
  try {
    return await connectUnix(path);
  } catch (error) {
    throw unreachable(error);
  }
}

function unreachable(error: unknown, details?: { readonly sent: true }): StasisError {
  return new StasisError('daemon-unreachable', `the daemon does not answer: ${messageOf(error)}`, {
    details,
    cause: error,
  });
}
