/**
 * Serial consoles: `Upgrade: stasis-console` turns the connection into the guest's raw serial line. QEMU serves one
 * client per line, so the daemon is that client and any number of people share it.
 */
import type { IncomingMessage, Server } from 'node:http';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import { getGuest } from '../catalog/guests.ts';
import { StasisError } from '../errors.ts';
import { SERIAL_SOCKET } from '../guests/command-line.ts';
import { storedDefinition } from '../guests/definition.ts';
import { withShortSocketPath } from '../socket-path.ts';
import type { ViewContext } from './views.ts';

const ROUTE = /^\/v1\/guests\/([^/?]+)\/console$/;
const PROTOCOL = 'stasis-console';

/**
 * Serves consoles on the HTTP server's upgrades.
 * @returns how to end all of them: a server waits for its connections before it closes
 */
export function consoleUpgrades(server: Server, context: ViewContext): () => void {
  const clients = new Set<Duplex>();
  const lines = new Map<string, Promise<SerialLine>>();
  server.on('upgrade', (request: IncomingMessage, client: Duplex) => {
    clients.add(client);
    client.on('close', () => clients.delete(client));
    client.on('error', () => client.destroy());
    serve(request, client, context, lines).catch((error: unknown) => refuse(client, StasisError.from(error)));
  });
  return () => {
    for (const client of clients) client.destroy();
  };
}

async function serve(
  request: IncomingMessage,
  client: Duplex,
  context: ViewContext,
  lines: Map<string, Promise<SerialLine>>,
): Promise<void> {
  const name = ROUTE.exec(request.url ?? '')?.[1];
  if (name === undefined || request.headers.upgrade !== PROTOCOL) {
    throw new StasisError('not-found', `there is nothing to upgrade at ${request.url ?? '/'}`);
  }
  const guest = await getGuest(context.host.catalog, decodeURIComponent(name));
  if (!storedDefinition(guest).serial) {
    throw new StasisError(
      'unsupported',
      `guest ${guest.name} has no serial console; define it with \`serial: true\``,
      { guest: guest.name },
    );
  }
  const { runDirectory } = context.host.supervisor.get(guest.uuid, guest.name);
  const line = await shared(lines, runDirectory);
  client.write(`HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ${PROTOCOL}\r\n\r\n`);
  line.join(client);
}

/** The guest's line, opened by the first who looks at it and given up with the last. */
async function shared(lines: Map<string, Promise<SerialLine>>, runDirectory: string): Promise<SerialLine> {
  const known = lines.get(runDirectory);
  if (known !== undefined) return known;
  const opening = SerialLine.open(join(runDirectory, SERIAL_SOCKET), () => lines.delete(runDirectory));
  lines.set(runDirectory, opening);
  try {
    return await opening;
  } catch (error) {
    lines.delete(runDirectory);
    throw error;
  }
}

function refuse(client: Duplex, error: StasisError): void {
  const body = JSON.stringify({ error: error.toJSON() });
  client.end(
    `HTTP/1.1 ${error.httpStatus} Refused\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
  );
}

/** A viewer that reads nothing while so much waits for it is let go. */
const MAX_BACKLOG_BYTES = 1024 ** 2;

class SerialLine {
  readonly #line: Socket;
  readonly #onGivenUp: () => void;
  readonly #viewers = new Set<Duplex>();
  #isGivenUp = false;

  private constructor(line: Socket, onGivenUp: () => void) {
    this.#line = line;
    this.#onGivenUp = onGivenUp;
    line.on('data', (data) => this.#tell(data));
    line.on('error', () => line.destroy());
    line.on('close', () => {
      this.#giveUp();
      for (const viewer of this.#viewers) viewer.end();
    });
  }

  static async open(path: string, onGivenUp: () => void): Promise<SerialLine> {
    const socket = await withShortSocketPath(
      path,
      (short) =>
        new Promise<Socket>((resolve, reject) => {
          const connecting = connect(short);
          connecting.once('error', reject);
          connecting.once('connect', () => {
            connecting.off('error', reject);
            resolve(connecting);
          });
        }),
    );
    return new SerialLine(socket, onGivenUp);
  }

  /** The line is held as long as anybody looks at it. */
  join(viewer: Duplex): void {
    this.#viewers.add(viewer);
    viewer.on('data', (data: Buffer) => this.#line.write(data));
    viewer.on('close', () => {
      this.#viewers.delete(viewer);
      if (this.#viewers.size > 0) return;
      this.#giveUp();
      this.#line.destroy();
    });
    viewer.on('end', () => viewer.end());
  }

  /** Told once: after that another line may stand in this one's place. */
  #giveUp(): void {
    if (this.#isGivenUp) return;
    this.#isGivenUp = true;
    this.#onGivenUp();
  }

  #tell(data: Buffer): void {
    for (const viewer of this.#viewers) {
      viewer.write(data);
      if (viewer.writableLength > MAX_BACKLOG_BYTES) viewer.destroy();
    }
  }
}
