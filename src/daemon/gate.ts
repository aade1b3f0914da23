/**
 * Who a request is from, and whether it may do what it asks for. On the unix socket the peer's uid decides, which the kernel
 * tells; from other machines a certificate of the daemon's own authority, or a token.
 */
import { execFile } from 'node:child_process';
import type { IncomingMessage } from 'node:http';
import { TLSSocket } from 'node:tls';
import { promisify } from 'node:util';
import { RateLimiterMemory } from 'rate-limiter-flexible';
import { includesRole } from '../access/principal.ts';
import { fingerprintOf } from '../fingerprint.ts';
import { isSecret, readToken } from '../access/token.ts';
import type { Role } from '../api/constants.ts';
import type { Principal } from '../api/remote.ts';
import { findValidCredential, touchCredential, type CredentialRecord } from '../catalog/credentials.ts';
import type { CatalogDatabase } from '../catalog/database.ts';
import { StasisError } from '../errors.ts';
import { originOf, refuseOtherPages, requireOwnPage } from '../page/guard.ts';
import { Sessions, type Session, type SessionRules } from '../page/sessions.ts';
import { fromStored } from '../stored.ts';
import { callerOf, nameCredential } from './caller.ts';
import { Connections } from './connections.ts';
import type { AccessSetting } from './settings.ts';
import { Sight } from './sight.ts';

/** So many wrong credentials a minute from one address; then it is told to wait for the rest of it. */
const FAILURES = { points: 20, duration: 60 };
const HOUR_MS = 3_600_000;
/** `__Host-`: browsers take it by HTTPS from this very host only, and send it to no other. */
const PAGE_SESSIONS: SessionRules = {
  name: '__Host-stasis-session',
  attributes: ['Path=/', 'Secure'],
  idleMs: HOUR_MS,
  longestMs: 12 * HOUR_MS,
  most: 32,
};
const ROOT = 0;
const run = promisify(execFile);

/** A credential that a request came with, and how. */
interface Shown {
  readonly credential: CredentialRecord;
  readonly session: Session<string> | undefined;
}

export class Gate {
  readonly #catalog: CatalogDatabase;
  readonly #local: readonly AccessSetting[];
  readonly #failures = new RateLimiterMemory(FAILURES);
  readonly #known = new WeakMap<IncomingMessage, Promise<Principal>>();
  readonly #connections = new Connections();
  readonly #sessionsOf = new WeakMap<IncomingMessage, Session<string>>();
  /** of the page, by the id of the token that each was had for; with the daemon they end */
  readonly #sessions = new Sessions<string>(PAGE_SESSIONS);
  /** ids of credentials, while this daemon runs: who was found good just before is so no longer */
  readonly #revoked = new Set<string>();

  /** @param local which users of this host may do what, beside root and the daemon's own */
  constructor(catalog: CatalogDatabase, local: readonly AccessSetting[]) {
    this.#catalog = catalog;
    this.#local = local;
  }

  /**
   * Asked once per request.
   * @throws StasisError `unauthorized`, `forbidden` for a user of this host who has no role, `too-many-requests`
   */
  principalOf(request: IncomingMessage): Promise<Principal> {
    const known = this.#known.get(request);
    if (known !== undefined) return known;
    const principal = request.socket instanceof TLSSocket ? this.#remote(request) : this.#user(request);
    this.#known.set(request, principal);
    return principal;
  }

  /** @throws as `principalOf` does; `forbidden` */
  async admit(request: IncomingMessage, role: Role): Promise<Principal> {
    const principal = await this.principalOf(request);
    if (includesRole(principal.role, role)) return principal;
    throw new StasisError(
      'forbidden',
      `${principal.name} is ${principal.role} here, and this needs the role ${role}`,
      { details: { role: principal.role, needed: role } },
    );
  }

  /** What of the guests there is for whoever sent this. Throws as `principalOf` does. */
  async sightOf(request: IncomingMessage): Promise<Sight> {
    return new Sight(this.#catalog, await this.principalOf(request));
  }

  /**
   * A session of the page for the token that a request brings; one that the browser has already ends.
   * @returns who that is from then on, and the `Set-Cookie`
   * @throws StasisError `invalid-state` for who is known by something else
   */
  async beginSession(
    request: IncomingMessage,
  ): Promise<{ readonly principal: Principal; readonly cookie: string }> {
    const { by } = await this.principalOf(request);
    const token = by === 'token' ? await this.#byToken(request) : undefined;
    if (token === undefined)
      throw new StasisError('invalid-state', `a session is had for a token, and you are known by your ${by}`);
    this.endSession(request);
    const { session, cookie } = this.#sessions.begin(token.id);
    nameCredential(request, token.name, session.name);
    return { principal: principalBy({ credential: token, session }), cookie };
  }

  /** Something comes through a channel that this opened: the session that it is by, if it is, doesn't end for want of requests. */
  isUsed(request: IncomingMessage): void {
    this.#sessionsOf.get(request)?.use();
  }

  /** Ends the session that a request comes by, if it does, and what goes on by it. @returns the `Set-Cookie` */
  endSession({ headers, socket }: IncomingMessage): string {
    const cookie = this.#sessions.end(headers.cookie);
    this.#connections.endThoseThatEnded(socket);
    return cookie;
  }

  /** Ends all that goes on by a credential that is revoked. @param request what revoked it: it is still answered */
  endCredential(id: string, { socket }: IncomingMessage): void {
    this.#revoked.add(id);
    this.#sessions.endAllOf(id);
    this.#connections.endThoseThatEnded(socket);
  }

  async #user(request: IncomingMessage): Promise<Principal> {
    const { uid, user } = await callerOf(request);
    const name = user ?? `uid ${uid ?? 'unknown'}`;
    const known = { name, by: 'user', expiresAt: null } as const;
    if (uid === ROOT || (uid !== null && uid === process.getuid?.()))
      return { ...known, role: 'admin', labels: null };
    const groups = user === null ? [] : await groupsOf(user);
    const setting = this.#local.find((each) =>
      'user' in each ? each.user === user || each.user === String(uid) : groups.includes(each.group),
    );
    if (setting === undefined)
      throw new StasisError(
        'forbidden',
        `${name} has no role on this daemon: \`access\` in its stasis.yaml gives users and groups of this host one`,
      );
    return { ...known, role: setting.role, labels: setting.labels ?? null };
  }

  async #remote(request: IncomingMessage): Promise<Principal> {
    const origin = originOf(request, 'https');
    refuseOtherPages(request, origin);
    const shown = await this.#shownBy(request);
    if (shown === undefined) throw await this.#refusal(request);
    const { credential, session } = shown;
    nameCredential(request, credential.name, session?.name);
    if (session !== undefined) {
      requireOwnPage(request, origin);
      this.#sessionsOf.set(request, session);
    }
    await touchCredential(this.#catalog, credential, new Date());
    const { id, expiresAt } = credential;
    const expiresAtMs = Date.parse(expiresAt);
    this.#connections.use(request.socket, () =>
      this.#revoked.has(id) ? 0 : Math.min(expiresAtMs, session?.endsAtMs() ?? Infinity),
    );
    return principalBy(shown);
  }

  /** What is said comes before what a browser sends by itself: whoever logs in is who the token says. */
  async #shownBy(request: IncomingMessage): Promise<Shown | undefined> {
    if (request.headers.authorization !== undefined) {
      const credential = await this.#byToken(request);
      return credential === undefined ? undefined : { credential, session: undefined };
    }
    const session = this.#sessions.find(request.headers.cookie);
    if (session !== undefined) {
      const token = await findValidCredential(this.#catalog, { id: session.owner }, new Date());
      if (token !== undefined) return { credential: token, session };
    }
    const credential = await this.#byCertificate(request);
    return credential === undefined ? undefined : { credential, session: undefined };
  }

  /**
   * Whoever has a good credential is let in all the same: others may come from the same address. Who shows none, as a browser
   * that comes first, guesses nothing.
   */
  async #refusal({ headers, socket }: IncomingMessage): Promise<StasisError> {
    const address = socket.remoteAddress ?? '';
    const isGuess = headers.authorization !== undefined || headers.cookie !== undefined;
    const failures = isGuess ? await this.#failures.penalty(address) : undefined;
    if (failures === undefined || failures.remainingPoints > 0)
      return new StasisError(
        'unauthorized',
        'this needs a token or a certificate that is good here: `stasis remote grant` makes one, on the host of the daemon',
      );
    return new StasisError(
      'too-many-requests',
      `too many wrong credentials from ${address}: try again in ${Math.ceil(failures.msBeforeNext / 1000)} s`,
    );
  }

  async #byCertificate({ socket }: IncomingMessage): Promise<CredentialRecord | undefined> {
    if (!(socket instanceof TLSSocket) || !socket.authorized) return undefined;
    const certificate = socket.getPeerX509Certificate();
    if (certificate === undefined) return undefined;
    const fingerprint = fingerprintOf(certificate);
    return findValidCredential(this.#catalog, { fingerprint }, new Date());
  }

  async #byToken({ headers }: IncomingMessage): Promise<CredentialRecord | undefined> {
    const [scheme, text = ''] = (headers.authorization ?? '').split(' ');
    const token = scheme?.toLowerCase() === 'bearer' ? readToken(text) : undefined;
    if (token === undefined) return undefined;
    const credential = await findValidCredential(this.#catalog, { id: token.id }, new Date());
    return credential !== undefined && isSecret(token.secret, credential.secretHash) ? credential : undefined;
  }
}

function principalBy({ credential, session }: Shown): Principal {
  const { name, kind, role, labels, expiresAt } = credential;
  const lastsUntilMs = Math.min(Date.parse(expiresAt), session?.lastsUntilMs ?? Infinity);
  return {
    ...{ name, role, by: session === undefined ? kind : 'session' },
    labels: labels === null ? null : fromStored<string[]>(labels),
    expiresAt: new Date(lastsUntilMs).toISOString(),
  };
}

/** All groups of a user, by id(1), which asks whatever this host has them from. */
async function groupsOf(user: string): Promise<string[]> {
  const { stdout } = await run('id', ['-Gn', '--', user], { timeout: 5_000 });
  return stdout.trim().split(' ');
}
