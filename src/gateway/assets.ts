/** The page's files, as the build left them: few, small, and read once. */
import { readdir, readFile } from 'node:fs/promises';
import { extname, join } from 'node:path';
import { StasisError } from '../errors.ts';

export interface Asset {
  readonly type: string;
  readonly bytes: Buffer;
  /** its name has its hash in it, so it never changes */
  readonly immutable: boolean;
}

const TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
};

/** Beside this file in the built program; a program that runs from its sources has the last build's. */
const DIRECTORY = join(
  import.meta.dirname,
  import.meta.filename.endsWith('.ts') ? '../../dist/web' : '../web',
);

/**
 * By their path below the page's address; `''` is the page itself.
 * @throws StasisError `not-found` when the page has not been built
 */
export async function readAssets(directory: string = DIRECTORY): Promise<Map<string, Asset>> {
  const names = await readdir(directory, { recursive: true }).catch(() => []);
  const assets = new Map<string, Asset>();
  for (const name of names) {
    const type = TYPES[extname(name)];
    if (type === undefined) continue;
    const asset = {
      type,
      bytes: await readFile(join(directory, name)),
      immutable: name.startsWith('assets/'),
    };
    assets.set(name === 'index.html' ? '' : name, asset);
  }
  if (!assets.has('')) {
    throw new StasisError(
      'not-found',
      `the web page is not built: ${directory} is missing; run \`npm run setup\``,
    );
  }
  return assets;
}
