/**
 * Connections that become a guest's channel, both ways: its serial line (`…/console`) or its VNC display (`…/display`).
 * `Upgrade: stasis-console` and `stasis-display` are the raw bytes; `Upgrade: websocket` wraps them, for browsers.
 */
import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { createWebSocketStream, WebSocketServer } from 'ws';
import type { GuestRecord } from '../catalog/guests.ts';
import { StasisError } from '../errors.ts';
import { recordChannel } from './audit-calls.ts';
import { CHANNEL_RULE } from './access.ts';
import { admitChannel } from './admission.ts';
import { serialLine, type SerialLines } from './console.ts';
import { joinDisplay, openDisplay } from './display.ts';
import type { Sight } from './sight.ts';
import type { ViewContext } from './views.ts';

const ROUTE = /^\/v1\/guests\/([^/?]+)\/(console|display)$/;
/** Nobody types or points more at once. */
const LARGEST_MESSAGE_BYTES = 1024 ** 2;

/** How a channel that is open is joined to the client's stream. */
type Join = (client: Duplex) => void;

/** Who looks at which guest: name or UUID, as it was asked for. */
interface Viewer {
  readonly guest: string;
  readonly sight: Sight;
}

export interface Channels {
  /** Serves what an HTTP server is asked to upgrade. */
  readonly upgrade: (request: IncomingMessage, client: Duplex, head: Buffer) => void;
  /** Ends all of them: a server waits for its connections before it closes. */
  readonly end: () => void;
}

export function openChannels(context: ViewContext): Channels {
  const clients = new Map<Duplex, Viewer | undefined>();
  const lines: SerialLines = new Map();
  const sockets = webSockets();
  const upgrade: Channels['upgrade'] = (request, client, head) => {
    clients.set(client, undefined);
    client.on('close', () => clients.delete(client));
    client.on('error', () => client.destroy());
    const note = (viewer: Viewer) => {
      if (!client.destroyed) clients.set(client, viewer);
    };
    const serve = async () => {
      const { protocol, join } = await openChannel(context, lines, request, note);
      if (protocol === 'websocket') joinWebSocket(sockets, { request, client, head }, join);
      else join(switched(client, protocol));
      client.on('data', () => context.gate.isUsed(request));
    };
    serve().catch((error: unknown) => refuse(client, StasisError.from(error)));
  };
  const end = () => {
    for (const client of clients.keys()) client.destroy();
  };
  // A guest gets other labels by an operation: whoever doesn't see it any more looks at it no longer.
  context.engine.onEnded(({ guest, guestName }) => {
    for (const [client, viewer] of clients) {
      if (viewer === undefined || viewer.sight.isWhole) continue;
      if (viewer.guest === guest || viewer.guest === guestName) void endUnlessSeen(client, viewer);
    }
  });
  return { upgrade, end };
}

export function webSockets(): WebSocketServer {
  return new WebSocketServer({ noServer: true, maxPayload: LARGEST_MESSAGE_BYTES });
}

/** When that can't be known it isn't seen. */
async function endUnlessSeen(client: Duplex, { guest, sight }: Viewer): Promise<void> {
  const isSeen = await sight.ofName(guest).catch(() => false);
  if (!isSeen) client.destroy();
}

/**
 * Opens the channel that is asked for: what can't be had is still answered as an error.
 * @param note told who it is for before that is decided: from then on nothing takes the guest out of their sight unnoticed
 */
async function openChannel(
  context: ViewContext,
  lines: SerialLines,
  request: IncomingMessage,
  note: (viewer: Viewer) => void,
): Promise<{ protocol: string; join: Join }> {
  const { guest, channel, protocol } = channelAt(request.url ?? '/', request.headers.upgrade ?? '');
  const tell = (outcome: string) =>
    recordChannel(context, request, { guest: guest.slice(0, 200), channel, outcome });
  try {
    note({ guest, sight: await context.gate.sightOf(request) });
    const record = await admitChannel(context, request, CHANNEL_RULE, guest);
    const join = await joinerOf(context, lines, record, channel);
    await tell('done');
    return { protocol, join };
  } catch (error) {
    await tell(StasisError.from(error).code);
    throw error;
  }
}

/** What an address and its `Upgrade` ask for. @throws StasisError `not-found` when there is no such channel */
export function channelAt(
  url: string,
  upgrade: string,
): { readonly guest: string; readonly channel: string; readonly protocol: string } {
  const [, name = '', channel = ''] = ROUTE.exec(url) ?? [];
  const protocol = upgrade.toLowerCase();
  const guest = decoded(name);
  if (guest === '' || !['websocket', `stasis-${channel}`].includes(protocol))
    throw new StasisError('not-found', `there is nothing to upgrade at ${url}`);
  return { guest, channel, protocol };
}

/** What percent signs stand for; nothing when they stand for no text. */
function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return '';
  }
}

async function joinerOf(
  context: ViewContext,
  lines: SerialLines,
  guest: GuestRecord,
  channel: string,
): Promise<Join> {
  if (channel === 'display') {
    const display = await openDisplay(context, guest);
    return (client) => joinDisplay(display, client);
  }
  const line = await serialLine(context, guest, lines);
  return (client) => line.join(client);
}

function switched(client: Duplex, protocol: string): Duplex {
  client.write(`HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ${protocol}\r\n\r\n`);
  return client;
}

/** A handshake that is none, or whose client has gone, leaves a channel that nobody will look at: it is let go of. */
export function joinWebSocket(
  sockets: WebSocketServer,
  { request, client, head }: { request: IncomingMessage; client: Duplex; head: Buffer },
  join: Join,
): void {
  let joined = false;
  sockets.handleUpgrade(request, client, head, (socket) => {
    joined = true;
    const stream = createWebSocketStream(socket);
    stream.on('error', () => stream.destroy());
    // It ends when the WebSocket has closed: what can't be sent any more would keep it, and what it is joined to.
    stream.on('end', () => stream.destroy());
    join(stream);
  });
  if (joined) return;
  client.destroy();
  join(client);
}

function refuse(client: Duplex, error: StasisError): void {
  const body = JSON.stringify({ error: error.toJSON() });
  client.end(
    `HTTP/1.1 ${error.httpStatus} Refused\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
  );
}
