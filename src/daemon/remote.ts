/**
 * The way to the daemon from other machines: HTTPS, TLS 1.3 only, off until asked for. What it needs stands in a directory of its
 * own; the file that says where to listen is written last and removed first, so it is on or off, and never half of it.
 */
import { once } from 'node:events';
import { mkdir, readFile, rm } from 'node:fs/promises';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer, type Server } from 'node:https';
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { join } from 'node:path';
import type { Socket } from 'node:net';
import { createSecureContext } from 'node:tls';
import type { Duplex } from 'node:stream';
import type { Logger } from 'pino';
import type { Identity } from '../access/authority.ts';
import { fingerprintOf } from '../fingerprint.ts';
import type { RemoteRequest, RemoteStatus } from '../api/remote.ts';
import { StasisError, errnoOf, messageOf } from '../errors.ts';
import { writeDurably } from '../storage/durable.ts';
import { fromStored } from '../stored.ts';
import { withPage } from './remote-page.ts';

const DAY_MS = 86_400_000;
/** Public authorities give no more either, and browsers refuse more than 825. */
const SERVER_DAYS = 397;
const RENEW_BEFORE_DAYS = 30;
/** Whoever is slower than that with the head of a request, or with all of it, is let go. */
const HEADERS_TIMEOUT_MS = 10_000;
const REQUEST_TIMEOUT_MS = 30_000;
const HANDSHAKE_TIMEOUT_MS = 10_000;
const MAX_CONNECTIONS = 4096;

export interface RemoteHandlers {
  request(request: IncomingMessage, response: ServerResponse): void;
  upgrade(request: IncomingMessage, client: Duplex, head: Buffer): void;
}

interface Wanted {
  readonly listen: string;
  readonly names: readonly string[];
  /** the certificate was given, and is renewed by whoever gave it */
  readonly given: boolean;
  /** the page is served there too; nothing: it is */
  readonly page?: boolean;
}

export class RemoteAccess implements AsyncDisposable {
  readonly #directory: string;
  readonly #log: Logger;
  readonly #renewal: NodeJS.Timeout;
  #handlers: RemoteHandlers | undefined;
  #server: Server | undefined;
  readonly #sockets = new Set<Socket>();

  constructor(directory: string, log: Logger) {
    this.#directory = directory;
    this.#log = log;
    this.#renewal = setInterval(() => void this.#renew(), DAY_MS);
    this.#renewal.unref();
  }

  /** Listens, if that is wanted. An address that can't be had now doesn't keep the daemon from its guests: it is logged. */
  async begin(handlers: RemoteHandlers): Promise<void> {
    this.#handlers = handlers;
    const wanted = await this.#wanted();
    if (wanted === undefined) return;
    try {
      await this.#listen(wanted);
    } catch (error) {
      this.#log.error(
        { err: error, listen: wanted.listen },
        `no access from other machines: ${messageOf(error)}`,
      );
    }
  }

  /**
   * Begins to listen, or does so elsewhere, and stays so over restarts.
   * @throws StasisError `invalid-request` for a certificate that doesn't fit, or an address that can't be listened on
   */
  async turnOn({ listen, names, given, page = true }: RemoteRequest): Promise<RemoteStatus> {
    await mkdir(this.#directory, { recursive: true, mode: 0o700 });
    const { createAuthority } = await import('../access/authority.ts');
    if ((await this.#read('authority')) === undefined)
      await this.#write('authority', await createAuthority(`Stasis on ${names[0] ?? ''}`));
    const wanted: Wanted = { listen, names, given: given !== undefined, page };
    const server = given ?? (await this.#issue(names));
    checkIdentity(server);
    await this.#write('server', server);
    await this.#close();
    await this.#listen(wanted);
    await this.#put('listen.json', JSON.stringify(wanted));
    return this.status();
  }

  async turnOff(): Promise<void> {
    await rm(join(this.#directory, 'listen.json'), { force: true });
    await this.#close();
  }

  async status(): Promise<RemoteStatus> {
    const wanted = this.#server === undefined ? undefined : await this.#wanted();
    const server = await this.#read('server');
    const authority = wanted?.given === true ? undefined : await this.#read('authority');
    return {
      listen: wanted === undefined ? null : this.#address(wanted),
      names: [...(wanted?.names ?? [])],
      certificateExpiresAt:
        server === undefined ? null : new X509Certificate(server.certificate).validToDate.toISOString(),
      authority: authority?.certificate ?? null,
      fingerprint: authority === undefined ? null : fingerprintOf(authority.certificate),
      page: wanted !== undefined && wanted.page !== false,
    };
  }

  /** A certificate for a client. @throws StasisError `invalid-state` while there is no authority yet */
  async issueClient(name: string, expiresAt: Date): Promise<Identity> {
    const authority = await this.#read('authority');
    if (authority === undefined)
      throw new StasisError(
        'invalid-state',
        'there is no certificate authority yet: `stasis remote setup` makes it',
      );
    const { issueClient } = await import('../access/authority.ts');
    return issueClient(authority, name, expiresAt);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#renewal);
    await this.#close();
  }

  async #listen(wanted: Wanted): Promise<void> {
    const [host = '', port = ''] = splitAddress(wanted.listen);
    const identity = (await this.#isOld(wanted))
      ? await this.#issue(wanted.names)
      : await this.#read('server');
    const authority = await this.#read('authority');
    const api: RemoteHandlers['request'] = (request, response) => this.#handlers?.request(request, response);
    const server = createServer(
      {
        // With the authority's beside it, for clients that know that by its fingerprint.
        cert: `${identity?.certificate}${wanted.given ? '' : authority?.certificate}`,
        key: identity?.key,
        ca: authority?.certificate,
        // Whoever has no certificate may have a token: what a certificate is good for is decided per request.
        requestCert: true,
        rejectUnauthorized: false,
        minVersion: 'TLSv1.3',
        handshakeTimeout: HANDSHAKE_TIMEOUT_MS,
        headersTimeout: HEADERS_TIMEOUT_MS,
        requestTimeout: REQUEST_TIMEOUT_MS,
      },
      wanted.page === false ? api : withPage(api, this.#log),
    );
    server.maxConnections = MAX_CONNECTIONS;
    server.on('upgrade', (request, client, head) => this.#handlers?.upgrade(request, client, head));
    server.on('tlsClientError', (_error, socket) => socket.destroy());
    server.on('connection', (socket: Socket) => {
      this.#sockets.add(socket);
      socket.on('close', () => this.#sockets.delete(socket));
    });
    try {
      server.listen({ host, port: Number(port), exclusive: true });
      await once(server, 'listening');
    } catch (error) {
      throw new StasisError('invalid-request', `can't listen on ${wanted.listen}: ${messageOf(error)}`, {
        cause: error,
      });
    }
    this.#server = server;
    this.#log.info({ listen: this.#address(wanted) }, 'access from other machines is on');
  }

  /** With the port that it has, if it was free to choose one. */
  #address({ listen }: Wanted): string {
    const [host] = splitAddress(listen);
    const address = this.#server?.address();
    if (address === null || address === undefined || typeof address === 'string') return listen;
    return `${host?.includes(':') === true ? `[${host}]` : host}:${address.port}`;
  }

  async #close(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    if (server === undefined) return;
    server.close();
    for (const socket of this.#sockets) socket.destroy(); // also those that became something else than HTTP
    await once(server, 'close');
  }

  async #renew(): Promise<void> {
    try {
      const wanted = await this.#wanted();
      if (wanted === undefined || !(await this.#isOld(wanted))) return;
      const { certificate: cert, key } = await this.#issue(wanted.names);
      const authority = (await this.#read('authority'))?.certificate;
      this.#server?.setSecureContext({ cert: `${cert}${authority}`, key, ca: authority });
    } catch (error) {
      this.#log.error({ err: error }, "the daemon's certificate could not be renewed");
    }
  }

  async #isOld(wanted: Wanted): Promise<boolean> {
    if (wanted.given) return false;
    const server = await this.#read('server');
    if (server === undefined) return true;
    const leftMs = new X509Certificate(server.certificate).validToDate.getTime() - Date.now();
    return leftMs < RENEW_BEFORE_DAYS * DAY_MS;
  }

  async #issue(names: readonly string[]): Promise<Identity> {
    const { issueServer } = await import('../access/authority.ts');
    const authority = await this.#read('authority');
    if (authority === undefined) throw new StasisError('internal', 'the certificate authority is gone');
    const identity = await issueServer(authority, names, new Date(Date.now() + SERVER_DAYS * DAY_MS));
    await this.#write('server', identity);
    return identity;
  }

  async #wanted(): Promise<Wanted | undefined> {
    const text = await this.#get('listen.json');
    return text === undefined ? undefined : fromStored<Wanted>(text);
  }

  /** Key and certificate in one file: they change together. */
  async #read(name: 'authority' | 'server'): Promise<Identity | undefined> {
    const text = await this.#get(`${name}.pem`);
    const [certificate, key] = text?.split(SEPARATOR) ?? [];
    return certificate === undefined || key === undefined ? undefined : { certificate, key };
  }

  #write(name: 'authority' | 'server', { certificate, key }: Identity): Promise<void> {
    return this.#put(`${name}.pem`, `${certificate}${SEPARATOR}${key}`);
  }

  async #get(name: string): Promise<string | undefined> {
    try {
      return await readFile(join(this.#directory, name), 'utf8');
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return undefined;
      throw error;
    }
  }

  #put(name: string, text: string): Promise<void> {
    return writeDurably(join(this.#directory, name), text);
  }
}

/** Between certificate and key: PEM allows for text between what it encloses. */
const SEPARATOR = 'key:\n';

/** @throws StasisError `invalid-request` */
export function checkIdentity({ certificate, key }: Identity): void {
  try {
    // An empty text would be no certificate to a secure context, and not a wrong one.
    if (!new X509Certificate(certificate).checkPrivateKey(createPrivateKey(key)))
      throw new Error('the key is that of another certificate');
    createSecureContext({ cert: certificate, key, minVersion: 'TLSv1.3' });
  } catch (error) {
    throw new StasisError('invalid-request', `certificate and key don't fit: ${messageOf(error)}`, {
      cause: error,
    });
  }
}

/** `[::1]:8443` → `::1`, `8443` */
function splitAddress(listen: string): string[] {
  const at = listen.lastIndexOf(':');
  return [listen.slice(0, at).replace(/^\[|\]$/g, ''), listen.slice(at + 1)];
}
