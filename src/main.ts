/** The program's one entry: `stasis daemon` is the daemon, everything else the command line that talks to it. */
import { enableCompileCache } from 'node:module';
import { join } from 'node:path';
import { sessionPaths } from './paths.ts';

// What V8 compiled is kept: half of a short command's time. In a directory of the user's own, not where others may write.
enableCompileCache(join(sessionPaths().cache, 'compiled'));

if (process.argv[2] === 'daemon') {
  const { main } = await import('./daemon/main.ts');
  await main(process.argv.slice(3));
} else {
  const { main } = await import('./cli/main.ts');
  await main(process.argv.slice(2));
}
