/**
 * Tokens: `stasis_ID_SECRET`. The id finds the record, the secret is 256 random bits, so that its plain hash is as good at rest as
 * a slow one would be. The prefix lets scanners of leaked secrets recognise one.
 */
import { hash, randomBytes, timingSafeEqual } from 'node:crypto';

const TOKEN = /^stasis_([0-9a-f]{16})_([\w-]{43})$/;
const ID_BYTES = 8;
const SECRET_BYTES = 32;

/** A new token: `token` is shown once, `id` and `hash` are kept. */
export function mintToken(): { readonly token: string; readonly id: string; readonly hash: string } {
  const id = randomBytes(ID_BYTES).toString('hex');
  const secret = randomBytes(SECRET_BYTES).toString('base64url');
  return { token: `stasis_${id}_${secret}`, id, hash: hash('sha256', secret, 'hex') };
}

/** The two parts of what may be a token; undefined when it can't be one. */
export function readToken(text: string): { readonly id: string; readonly secret: string } | undefined {
  const [, id, secret] = TOKEN.exec(text) ?? [];
  return id === undefined || secret === undefined ? undefined : { id, secret };
}

/** Whether a secret is the one that was hashed, in constant time. */
export function isSecret(secret: string, hashed: string): boolean {
  return timingSafeEqual(Buffer.from(hash('sha256', secret, 'hex')), Buffer.from(hashed));
}
