/**
 * What every request must be before anything looks at it: meant for this very address (a name that an attacker's DNS
 * points at 127.0.0.1 is in `Host`), and from our own page (another page's requests have its `Origin`, also those of
 * other ports of this host; `Sec-Fetch-Site` tells it of requests without one).
 */
import type { IncomingMessage } from 'node:http';
import { StasisError } from '../errors.ts';

/** @throws StasisError `unauthorized` */
export function requireOwnAddress({ headers }: IncomingMessage, host: string): void {
  if (headers.host !== host) {
    throw new StasisError('unauthorized', `this is http://${host} and answers to no other name`);
  }
}

/**
 * For everything but the page's own files, which anybody may have.
 * @throws StasisError `unauthorized`
 */
export function requireOwnPage({ headers, method }: IncomingMessage, host: string): void {
  const site = headers['sec-fetch-site'];
  const ownOrigin = headers.origin === `http://${host}`;
  const changes = method !== 'GET' || headers.upgrade !== undefined;
  const foreign = site !== undefined && site !== 'same-origin';
  if (foreign || (headers.origin !== undefined && !ownOrigin) || (changes && !ownOrigin)) {
    throw new StasisError('unauthorized', `${method} is for Stasis's own page only`, {
      details: { origin: headers.origin ?? null },
    });
  }
}

/**
 * No script but our own file, nothing from elsewhere, no frame around us. Styles may be inline: xterm.js makes its
 * own at run time.
 */
export function securityHeaders(host: string): Record<string, string> {
  return {
    'content-security-policy': [
      "default-src 'none'",
      "script-src 'self'",
      "style-src 'self' 'unsafe-inline'",
      "img-src 'self' data: blob:",
      `connect-src 'self' ws://${host}`,
      "base-uri 'none'",
      "form-action 'none'",
      "frame-ancestors 'none'",
    ].join('; '),
    'x-content-type-options': 'nosniff',
    'x-frame-options': 'DENY',
    'referrer-policy': 'no-referrer',
    'cross-origin-opener-policy': 'same-origin',
    'cross-origin-resource-policy': 'same-origin',
    'permissions-policy': 'camera=(), microphone=(), geolocation=(), usb=()',
  };
}
