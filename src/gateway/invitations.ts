/**
 * Who may use the page. A link holds a secret in its fragment, which browsers don't send: the page exchanges it, once,
 * for a session.
 *
 * Cookies don't know ports: one for 127.0.0.1 would also be sent to whatever else, of whatever user, serves there. So
 * the page lives under a path that can't be guessed, and the cookie is for that path alone.
 */
import { hashed, newSecret, Sessions } from '../page/sessions.ts';

export class Invitations {
  /** `/RANDOM/`: what all addresses of this gateway begin with */
  readonly path = `/${newSecret()}/`;
  /** hashes of secrets that nobody has used yet */
  readonly #unused = new Set<string>();
  /** As long as the process: it is the user's own, on their own host. */
  readonly #sessions = new Sessions<'user'>({
    ...{ name: 'stasis-session', attributes: [`Path=${this.path}`] },
    ...{ idleMs: Infinity, longestMs: Infinity, most: Infinity },
  });

  /** A secret that is good for one session. */
  invite(): string {
    const secret = newSecret();
    this.#unused.add(hashed(secret));
    return secret;
  }

  /** @returns the `Set-Cookie` of a new session, or undefined when the secret is none or was used */
  accept(secret: string): string | undefined {
    return this.#unused.delete(hashed(secret)) ? this.#sessions.begin('user').cookie : undefined;
  }

  /**
   * @param cookies a request's `Cookie` header
   * @returns the name of the session, or undefined when there is none
   */
  nameOf(cookies: string | undefined): string | undefined {
    return this.#sessions.find(cookies)?.name;
  }
}
