/** Where a daemon is: what `--connect` and `STASIS_CONNECT` say, and what holds when neither is given. */
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { StasisError } from '../errors.ts';
import { sessionPaths, systemPaths } from '../paths.ts';

/** Where a daemon is: a unix socket of this host, or HTTPS with whom to believe there and what to be let in by. */
export type Endpoint =
  | { readonly kind: 'unix'; readonly path: string }
  | {
      readonly kind: 'https';
      readonly url: URL;
      /** PEM of the only authority that is believed; none: those that the system believes */
      readonly authority?: string | undefined;
      readonly token?: string | undefined;
      /** PEM, in place of a token */
      readonly identity?: { readonly certificate: string; readonly key: string } | undefined;
    };

/**
 * The endpoint that `unix:PATH` or `https://HOST[:PORT]` names; a relative path is relative to the working
 * directory.
 *
 * @throws `invalid-request` when it is neither
 */
export function parseEndpoint(text: string): Endpoint {
  if (text.startsWith('unix:')) {
    const path = text.slice('unix:'.length).replace(/^\/\/(?=\/)/, '');
    if (path !== '') return { kind: 'unix', path: resolve(path) };
  } else if (text.startsWith('https://') && URL.canParse(text)) {
    return { kind: 'https', url: new URL(text) };
  }
  throw new StasisError(
    'invalid-request',
    `"${text}" is no address of a daemon: use unix:PATH or https://HOST`,
  );
}

/** The address given by hand or by `STASIS_CONNECT`; without one, root's is the system's daemon where that is installed. */
export function chosenEndpoint(
  connect: string | undefined,
  environment: NodeJS.ProcessEnv = process.env,
): Endpoint | undefined {
  const text = connect ?? environment['STASIS_CONNECT'];
  return text === undefined || text === '' ? systemEndpoint(environment) : parseEndpoint(text);
}

/** The socket of the system's daemon, for root, who looks after that, unless a home of another is meant. */
function systemEndpoint(environment: NodeJS.ProcessEnv): Endpoint | undefined {
  const { socket } = systemPaths();
  const isMeant = process.geteuid?.() === 0 && !environment['STASIS_HOME'] && existsSync(socket);
  return isMeant ? { kind: 'unix', path: socket } : undefined;
}

/** The socket of the user's own session daemon. */
export function sessionEndpoint(environment: NodeJS.ProcessEnv = process.env): Endpoint {
  return { kind: 'unix', path: sessionPaths(environment).socket };
}

/** An endpoint as a person would write it. */
export function formatEndpoint(endpoint: Endpoint): string {
  return endpoint.kind === 'unix' ? `unix:${endpoint.path}` : endpoint.url.origin;
}
