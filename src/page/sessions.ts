/**
 * Sessions of the page: a cookie that scripts can't read and that no other site's requests bring. Only its hash is kept, and
 * in memory alone: a session ends with the process at the latest.
 */
import { hash, randomBytes } from 'node:crypto';

const SECRET_BYTES = 32;
/** Of a session's hash: 32 bits tell a few sessions apart. */
const NAME_CHARS = 8;

export interface SessionRules {
  /** of the cookie */
  readonly name: string;
  /** beside those that all have, such as `Path=/` */
  readonly attributes: readonly string[];
  /** without a request */
  readonly idleMs: number;
  readonly longestMs: number;
  /** of one owner; with one more the oldest ends */
  readonly most: number;
}

export interface Session<Owner> {
  readonly owner: Owner;
  /** tells it from others, and opens nothing */
  readonly name: string;
  readonly lastsUntilMs: number;
  /** when it has ended, by the clock as it is now */
  endsAtMs(): number;
  /** It is used, by something else than a request. */
  use(): void;
}

export class Sessions<Owner> {
  readonly #rules: SessionRules;
  readonly #now: () => number;
  /** by hash, oldest first: how long it takes to look for one says nothing of the secret */
  readonly #sessions = new Map<string, Session<Owner>>();

  /** @param now milliseconds since the epoch */
  constructor(rules: SessionRules, now: () => number = Date.now) {
    this.#rules = rules;
    this.#now = now;
  }

  /** A new session. @returns its `Set-Cookie` */
  begin(owner: Owner): { readonly session: Session<Owner>; readonly cookie: string } {
    this.#forgetEnded();
    const own = [...this.#sessions].filter(([, kept]) => kept.owner === owner);
    for (const [key] of own.slice(0, Math.max(0, own.length + 1 - this.#rules.most)))
      this.#sessions.delete(key);
    const secret = newSecret();
    const key = hashed(secret);
    const { idleMs, longestMs } = this.#rules;
    let usedAtMs = this.#now();
    const lastsUntilMs = usedAtMs + longestMs;
    const session: Session<Owner> = {
      ...{ owner, name: key.slice(0, NAME_CHARS), lastsUntilMs },
      endsAtMs: () => (this.#sessions.has(key) ? Math.min(lastsUntilMs, usedAtMs + idleMs) : 0),
      use: () => {
        usedAtMs = this.#now();
      },
    };
    this.#sessions.set(key, session);
    return { session, cookie: this.#cookie(secret) };
  }

  /**
   * The session that a request brings; it counts as used from then on.
   * @param cookies the request's `Cookie` header
   */
  find(cookies: string | undefined): Session<Owner> | undefined {
    const session = this.#sessions.get(this.#keyIn(cookies));
    if (session === undefined || session.endsAtMs() <= this.#now()) return undefined;
    session.use();
    return session;
  }

  /** @returns the `Set-Cookie` that makes a browser forget it too */
  end(cookies: string | undefined): string {
    this.#sessions.delete(this.#keyIn(cookies));
    return `${this.#cookie('')}; Max-Age=0`;
  }

  /** All of somebody's. */
  endAllOf(owner: Owner): void {
    for (const [key, session] of this.#sessions) if (session.owner === owner) this.#sessions.delete(key);
  }

  #forgetEnded(): void {
    const now = this.#now();
    for (const [key, session] of this.#sessions) if (session.endsAtMs() <= now) this.#sessions.delete(key);
  }

  #cookie(value: string): string {
    return [`${this.#rules.name}=${value}`, ...this.#rules.attributes, 'HttpOnly', 'SameSite=Strict'].join(
      '; ',
    );
  }

  #keyIn(cookies: string | undefined): string {
    const start = `${this.#rules.name}=`;
    const found = (cookies ?? '').split('; ').find((cookie) => cookie.startsWith(start));
    return hashed(found?.slice(start.length) ?? '');
  }
}

/** 256 random bits, so that their plain hash is as good as a slow one. */
export function newSecret(): string {
  return randomBytes(SECRET_BYTES).toString('base64url');
}

export function hashed(secret: string): string {
  return hash('sha256', secret, 'hex');
}
