/**
 * What a browser's request must be before anything looks at it: from our own page. Another page's requests have its
 * `Origin`, also those of other ports of this host; `Sec-Fetch-Site` tells it of requests without one. Whoever says
 * neither is no browser, and has nothing that a browser would send along for another page's sake.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { PAGE_HEADER } from '../api/constants.ts';
import { StasisError } from '../errors.ts';

/** A name or an address, with a port: nothing that would mean something else in a header of ours. */
const HOST = /^[\w.:[\]-]+$/;

/**
 * The origin that a request is meant for.
 * @throws StasisError `invalid-request`
 */
export function originOf({ headers }: IncomingMessage, scheme: 'http' | 'https'): string {
  const { host = '' } = headers;
  if (!HOST.test(host)) throw new StasisError('invalid-request', 'the request says no host that it is for');
  return `${scheme}://${host}`;
}

/**
 * For everything but the page's own files, which anybody may have.
 * @param origin the page's
 * @throws StasisError `unauthorized`
 */
export function refuseOtherPages({ headers, method = '' }: IncomingMessage, origin: string): void {
  const site = headers['sec-fetch-site'];
  const isForeign = site !== undefined && site !== 'same-origin';
  if (isForeign || (headers.origin !== undefined && headers.origin !== origin))
    throw refusal(method, headers.origin);
}

/**
 * For what a browser is known by through nothing but its cookie: to change something, or to open a channel, it must say
 * that it is our page; the header is one that no other page can set without asking first, and nobody is told yes.
 * @throws StasisError `unauthorized`
 */
export function requireOwnPage(request: IncomingMessage, origin: string): void {
  const { headers, method = '' } = request;
  refuseOtherPages(request, origin);
  const isChannel = headers.upgrade !== undefined;
  const isChange = method !== 'GET' && method !== 'HEAD';
  if ((isChannel || isChange) && headers.origin !== origin) throw refusal(method, headers.origin);
  if (isChange && headers[PAGE_HEADER] === undefined) throw refusal(method, headers.origin);
}

function refusal(method: string, origin: string | undefined): StasisError {
  return new StasisError('unauthorized', `${method} is for Stasis's own page only`, {
    details: { origin: origin ?? null },
  });
}

/**
 * No script but our own file, nothing from elsewhere, no frame around us. Styles may be inline: xterm.js makes its
 * own at run time.
 * @param origin the page's
 */
export function setSecurityHeaders(response: ServerResponse, origin: string): void {
  const headers = {
    'content-security-policy': [
      "default-src 'none'",
      "script-src 'self'",
      "style-src 'self' 'unsafe-inline'",
      "img-src 'self' data: blob:",
      // Not every browser takes a WebSocket for `self`.
      `connect-src 'self' ${origin.replace(/^http/, 'ws')}`,
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
  for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
}
