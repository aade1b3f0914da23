/** The page's files, as the build left them: few, small, and read once. */
import { readdir, readFile } from 'node:fs/promises';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { extname, join } from 'node:path';
import { promisify } from 'node:util';
import { gzip } from 'node:zlib';
import { StasisError } from '../errors.ts';
import { WEB_PAGE } from '../installation.ts';

export interface Asset {
  readonly type: string;
  readonly bytes: Buffer;
  readonly gzipped: Buffer;
  /** its name has its hash in it, so it never changes */
  readonly immutable: boolean;
}

/** By their path below the page's address; `''` is the page itself. */
export type Assets = ReadonlyMap<string, Asset>;

const TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
};

const compress = promisify(gzip);

/** @throws StasisError `not-found` when the page has not been built */
export async function readAssets(directory: string = WEB_PAGE): Promise<Assets> {
  const names = await readdir(directory, { recursive: true }).catch(() => []);
  const assets = new Map<string, Asset>();
  for (const name of names) {
    const type = TYPES[extname(name)];
    if (type === undefined) continue;
    const bytes = await readFile(join(directory, name));
    const immutable = name.startsWith('assets/');
    assets.set(name === 'index.html' ? '' : name, { type, bytes, gzipped: await compress(bytes), immutable });
  }
  if (!assets.has('')) {
    throw new StasisError(
      'not-found',
      `the web page is not built: ${directory} is missing; run \`npm run setup\``,
    );
  }
  return assets;
}

/** Nothing of it is secret: what is compressed tells nobody anything by its length. */
export function sendAsset(
  { headers }: IncomingMessage,
  response: ServerResponse,
  { type, bytes, gzipped, immutable }: Asset,
): void {
  const isZipped = headers['accept-encoding']?.includes('gzip') ?? false;
  const body = isZipped ? gzipped : bytes;
  response.writeHead(200, {
    'content-type': type,
    'content-length': body.length,
    'cache-control': immutable ? 'private, max-age=31536000, immutable' : 'no-store',
    vary: 'accept-encoding',
    ...(isZipped ? { 'content-encoding': 'gzip' } : {}),
  });
  response.end(body);
}
