/**
 * Who a request is from, and whether it may do what it asks for. On the unix socket the peer's uid decides, which the kernel
 * tells; from other machines a certificate of the daemon's own authority, or a token.
 */
import { execFile } from 'node:child_process';
import type { IncomingMessage } from 'node:http';
import { TLSSocket } from 'node:tls';
import { promisify } from 'node:util';
import { RateLimiterMemory } from 'rate-limiter-flexible';
import { includesRole, type Principal } from '../access/principal.ts';
import { fingerprintOf } from '../fingerprint.ts';
import { isSecret, readToken } from '../access/token.ts';
import type { Role } from '../api/constants.ts';
import { findValidCredential, touchCredential, type CredentialRecord } from '../catalog/credentials.ts';
import type { CatalogDatabase } from '../catalog/database.ts';
import { StasisError } from '../errors.ts';
import { fromStored } from '../stored.ts';
import { callerOf, nameCredential } from './caller.ts';
import type { AccessSetting } from './settings.ts';
import { Sight } from './sight.ts';

/** So many wrong credentials a minute from one address; then it is told to wait for the rest of it. */
const FAILURES = { points: 20, duration: 60 };
const ROOT = 0;
const run = promisify(execFile);

export class Gate {
  readonly #catalog: CatalogDatabase;
  readonly #local: readonly AccessSetting[];
  readonly #failures = new RateLimiterMemory(FAILURES);
  readonly #known = new WeakMap<IncomingMessage, Promise<Principal>>();

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

  async #user(request: IncomingMessage): Promise<Principal> {
    const { uid, user } = await callerOf(request);
    const name = user ?? `uid ${uid ?? 'unknown'}`;
    if (uid === ROOT || (uid !== null && uid === process.getuid?.()))
      return { name, role: 'admin', labels: null };
    const groups = user === null ? [] : await groupsOf(user);
    const setting = this.#local.find((each) =>
      'user' in each ? each.user === user || each.user === String(uid) : groups.includes(each.group),
    );
    if (setting === undefined)
      throw new StasisError(
        'forbidden',
        `${name} has no role on this daemon: \`access\` in its stasis.yaml gives users and groups of this host one`,
      );
    return { name, role: setting.role, labels: setting.labels ?? null };
  }

  async #remote(request: IncomingMessage): Promise<Principal> {
    const credential = (await this.#byCertificate(request)) ?? (await this.#byToken(request));
    if (credential === undefined) throw await this.#refusal(request.socket.remoteAddress ?? '');
    const { name, role, labels } = credential;
    nameCredential(request, name);
    return { name, role, labels: labels === null ? null : fromStored<string[]>(labels) };
  }

  /** Whoever has a good credential is let in all the same: others may come from the same address. */
  async #refusal(address: string): Promise<StasisError> {
    const { remainingPoints, msBeforeNext } = await this.#failures.penalty(address);
    if (remainingPoints > 0)
      return new StasisError(
        'unauthorized',
        'this needs a token or a certificate that is good here: `stasis remote grant` makes one, on the host of the daemon',
      );
    return new StasisError(
      'too-many-requests',
      `too many wrong credentials from ${address}: try again in ${Math.ceil(msBeforeNext / 1000)} s`,
    );
  }

  async #byCertificate({ socket }: IncomingMessage): Promise<CredentialRecord | undefined> {
    if (!(socket instanceof TLSSocket) || !socket.authorized) return undefined;
    const certificate = socket.getPeerX509Certificate();
    if (certificate === undefined) return undefined;
    const fingerprint = fingerprintOf(certificate);
    return this.#used(await findValidCredential(this.#catalog, { fingerprint }, new Date()));
  }

  async #byToken({ headers }: IncomingMessage): Promise<CredentialRecord | undefined> {
    const [scheme, text = ''] = (headers.authorization ?? '').split(' ');
    const token = scheme?.toLowerCase() === 'bearer' ? readToken(text) : undefined;
    if (token === undefined) return undefined;
    const credential = await findValidCredential(this.#catalog, { id: token.id }, new Date());
    if (credential === undefined || !isSecret(token.secret, credential.secretHash)) return undefined;
    return this.#used(credential);
  }

  async #used(credential: CredentialRecord | undefined): Promise<CredentialRecord | undefined> {
    if (credential !== undefined) await touchCredential(this.#catalog, credential, new Date());
    return credential;
  }
}

/** All groups of a user, by id(1), which asks whatever this host has them from. */
async function groupsOf(user: string): Promise<string[]> {
  const { stdout } = await run('id', ['-Gn', '--', user], { timeout: 5_000 });
  return stdout.trim().split(' ');
}
