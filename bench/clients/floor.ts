/**
 * What this machine can do at all: a server that does nothing but answer. It has one answer of the daemon's for each kind of request
 * and tells its streams as many messages as the daemon did. Beside the same guest, with the same clients, it is what the daemon is
 * held against.
 */
import { once } from 'node:events';
import { createServer, request, type IncomingMessage, type ServerResponse } from 'node:http';
import { buffer } from 'node:stream/consumers';

export interface FloorTask {
  readonly socket: string;
  /** the daemon's */
  readonly daemon: string;
  /** to each stream */
  readonly messagesPerSecond: number;
}

const MESSAGE = `event: operation\ndata: ${JSON.stringify({ filler: 'x'.repeat(600) })}\n\n`;

// oxlint-disable-next-line typescript/no-unsafe-type-assertion -- it is what clients.ts starts it with
const task = JSON.parse(process.argv[2] ?? '') as FloorTask;
const answers = new Map<string, Promise<Buffer>>();
const streams = new Set<ServerResponse>();

async function answer({ url = '/' }: IncomingMessage, response: ServerResponse): Promise<void> {
  if (url.startsWith('/v1/events')) {
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.flushHeaders();
    streams.add(response);
    response.on('close', () => streams.delete(response));
    return;
  }
  const kind = url.replaceAll(/\d+/g, '');
  const body = answers.get(kind) ?? ofDaemon(url);
  answers.set(kind, body);
  response.setHeader('content-type', 'application/json; charset=utf-8').end(await body);
}

async function ofDaemon(path: string): Promise<Buffer> {
  const asked = request({ socketPath: task.daemon, path });
  asked.end();
  const [reply]: IncomingMessage[] = await once(asked, 'response');
  if (reply?.statusCode !== 200) throw new Error(`the daemon has no answer to ${path}`);
  return buffer(reply);
}

const server = createServer((asked, response) => void answer(asked, response));
server.listen(task.socket);
await once(server, 'listening');
if (task.messagesPerSecond > 0)
  setInterval(() => {
    for (const stream of streams) stream.write(MESSAGE);
  }, 1000 / task.messagesPerSecond);
process.send?.('open');
