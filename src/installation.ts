/** Where the parts of this program lie. It runs from `src`, or as it is built from `dist`: there all chunks lie in one folder. */
import { extname, join } from 'node:path';

const PROGRAMS = import.meta.dirname;
const ROOT = join(PROGRAMS, '..');

/** The command. */
export const LAUNCHER = join(ROOT, 'bin/stasis');
/** The web page, as it was last built. */
export const WEB_PAGE = join(ROOT, 'dist/web');

/** A program that is started on its own. @param name its source below `src`, without its ending */
export function programFile(name: string): string {
  return join(PROGRAMS, `${name}${extname(import.meta.filename)}`);
}
