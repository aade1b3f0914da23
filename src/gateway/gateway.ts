/**
 * The way of a browser on this host to the daemon: a small HTTP server on 127.0.0.1 that serves the page and hands its
 * requests on. It is a process of the user who asked for it, apart from the daemon, which goes on listening on its unix
 * socket only: whoever may open that socket may open the page, the daemon parses nothing that comes from a port, and
 * with the process the way is gone.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import type { Duplex } from 'node:stream';
import { StasisError } from '../errors.ts';
import { readAssets, sendAsset, type Assets } from '../page/assets.ts';
import { requireOwnPage, setSecurityHeaders } from '../page/guard.ts';
import { sendError } from '../page/send-error.ts';
import { forward, forwardChannel } from './forward.ts';
import { Invitations } from './invitations.ts';

const ADDRESS = '127.0.0.1';
/** A secret in JSON. */
const LARGEST_LOGIN_CHARS = 200;

export class Gateway implements AsyncDisposable {
  /** path of its socket */
  readonly #daemon: string;
  readonly #assets: Assets;
  readonly #invitations = new Invitations();
  readonly #server: Server;
  readonly #channels = new Set<Duplex>();
  #origin = '';

  private constructor(daemon: string, assets: Assets) {
    this.#daemon = daemon;
    this.#assets = assets;
    this.#server = createServer({ requestTimeout: 30_000, headersTimeout: 10_000 }, (request, response) => {
      this.#answer(request, response).catch((error: unknown) => sendError(response, StasisError.from(error)));
    });
    this.#server.on('upgrade', (request, client: Duplex) => {
      this.#channels.add(client);
      client.on('close', () => this.#channels.delete(client));
      client.on('error', () => client.destroy());
      this.#upgrade(request, client).catch(() =>
        client.end('HTTP/1.1 403 Refused\r\nConnection: close\r\n\r\n'),
      );
    });
  }

  /**
   * @param daemon path of its socket
   * @param port 0 for any that is free
   * @throws StasisError `not-found` when the page is not built, `busy` when somebody else listens on the port
   */
  static async open(daemon: string, port: number): Promise<Gateway> {
    const gateway = new Gateway(daemon, await readAssets());
    const server = gateway.#server;
    try {
      server.listen(port, ADDRESS);
      await once(server, 'listening');
    } catch (error) {
      throw new StasisError(
        'busy',
        `port ${port} of ${ADDRESS} can't be listened on; choose another with --port`,
        {
          cause: error,
        },
      );
    }
    const address = server.address();
    if (address === null || typeof address === 'string') throw new Error('an inet socket has a port');
    gateway.#origin = `http://${ADDRESS}:${address.port}`;
    return gateway;
  }

  /** A link to the page, good for one browser. */
  link(): string {
    return `${this.#origin}${this.#invitations.path}#secret=${this.#invitations.invite()}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const client of this.#channels) client.destroy();
    const closed = once(this.#server, 'close');
    this.#server.close();
    this.#server.closeAllConnections();
    await closed;
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    response.on('error', () => response.destroy());
    setSecurityHeaders(response, this.#origin);
    response.setHeader('cache-control', 'no-store');
    this.#requireOwnAddress(request);
    const path = this.#pathOf(request);
    const asset = this.#assets.get(path);
    if (asset !== undefined && request.method === 'GET') return sendAsset(request, response, asset);
    requireOwnPage(request, this.#origin);
    if (path === 'session' && request.method === 'POST') return this.#login(request, response);
    const session = this.#requireSession(request, path);
    await forward({ daemon: this.#daemon, path: `/${path}`, session }, request, response);
  }

  async #upgrade(request: IncomingMessage, client: Duplex): Promise<void> {
    this.#requireOwnAddress(request);
    requireOwnPage(request, this.#origin);
    const path = this.#pathOf(request);
    const session = this.#requireSession(request, path);
    await forwardChannel({ daemon: this.#daemon, path: `/${path}`, session }, request, client);
  }

  /**
   * A name that an attacker's DNS points at 127.0.0.1 is in `Host`.
   * @throws StasisError `unauthorized`
   */
  #requireOwnAddress({ headers }: IncomingMessage): void {
    if (`http://${headers.host}` !== this.#origin)
      throw new StasisError('unauthorized', `this is ${this.#origin} and answers to no other name`);
  }

  /** @throws StasisError `not-found` for whoever doesn't know where the page is */
  #pathOf({ url = '' }: IncomingMessage): string {
    if (!url.startsWith(this.#invitations.path)) throw new StasisError('not-found', 'there is nothing here');
    return url.slice(this.#invitations.path.length);
  }

  /** @returns the session's name */
  #requireSession({ headers }: IncomingMessage, path: string): string {
    const session = this.#invitations.nameOf(headers.cookie);
    if (session === undefined) {
      throw new StasisError(
        'unauthorized',
        'this page has no session: open the link that `stasis web` printed',
      );
    }
    if (!path.startsWith('v1/')) throw new StasisError('not-found', 'there is nothing here');
    return session;
  }

  async #login(request: IncomingMessage, response: ServerResponse): Promise<void> {
    if (Number(request.headers['content-length'] ?? Infinity) > LARGEST_LOGIN_CHARS) {
      throw new StasisError('invalid-request', 'that is no secret');
    }
    const cookie = this.#invitations.accept(await text(request));
    if (cookie === undefined) {
      throw new StasisError('unauthorized', 'this link was used already: each is good for one browser');
    }
    response.writeHead(204, { 'set-cookie': cookie }).end();
  }
}
