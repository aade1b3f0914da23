/**
 * Who may use the page. A link holds a secret in its fragment, which browsers don't send: the page exchanges it, once,
 * for a session cookie that scripts can't read.
 *
 * Cookies don't know ports: one for 127.0.0.1 would also be sent to whatever else, of whatever user, serves there. So
 * the page lives under a path that can't be guessed, and the cookie is for that path alone.
 */
import { hash, randomBytes, timingSafeEqual } from 'node:crypto';

const SECRET_BYTES = 32;
/** Of a session's hash: 32 bits tell a few sessions apart. */
const NAME_CHARS = 8;
const COOKIE = 'stasis-session';

export class Sessions {
  /** `/RANDOM/`: what all addresses of this gateway begin with */
  readonly path = `/${newSecret()}/`;
  /** hashes of secrets that nobody has used yet, and of sessions */
  readonly #unused = new Set<string>();
  readonly #sessions = new Set<string>();

  /** A secret that is good for one session. */
  invite(): string {
    const secret = newSecret();
    this.#unused.add(hashed(secret));
    return secret;
  }

  /** @returns the `Set-Cookie` of a new session, or undefined when the secret is none or was used */
  begin(secret: string): string | undefined {
    const known = find(this.#unused, secret);
    if (known === undefined) return undefined;
    this.#unused.delete(known);
    const session = newSecret();
    this.#sessions.add(hashed(session));
    return `${COOKIE}=${session}; Path=${this.path}; HttpOnly; SameSite=Strict`;
  }

  /**
   * @param cookies a request's `Cookie` header
   * @returns a name of the session, by which nothing can be opened; undefined when there is none
   */
  nameOf(cookies: string | undefined): string | undefined {
    const session = (cookies ?? '')
      .split('; ')
      .find((cookie) => cookie.startsWith(`${COOKIE}=`))
      ?.slice(COOKIE.length + 1);
    return session === undefined ? undefined : find(this.#sessions, session)?.slice(0, NAME_CHARS);
  }
}

function newSecret(): string {
  return randomBytes(SECRET_BYTES).toString('base64url');
}

function hashed(secret: string): string {
  return hash('sha256', secret, 'hex');
}

/** Looks at all of them, each in constant time. */
function find(hashes: ReadonlySet<string>, secret: string): string | undefined {
  const wanted = Buffer.from(hashed(secret));
  return [...hashes].filter((known) => timingSafeEqual(Buffer.from(known), wanted))[0];
}
