/**
 * The program that the daemons of a campaign run, in few files: most of what a daemon's start costs is finding and compiling some
 * hundred modules, and a history starts daemon after daemon. It is made of the sources as they are, which may change meanwhile.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { build } from 'vite';
import { Lab } from '../lab.ts';

const ROOT = join(import.meta.dirname, '../../..');
/** What runs as a process of its own, beside the program. */
const INPUTS = ['main.ts', 'qemu/pager/pager-main.ts', 'storage/file-sum-main.ts'];

export interface CampaignProgram extends AsyncDisposable {
  /** with which a lab runs it */
  readonly environment: NodeJS.ProcessEnv;
}

export async function buildProgram(): Promise<CampaignProgram> {
  // Within the project, for the sake of what is loaded from node_modules.
  const directory = await mkdtemp(join(ROOT, '.cache/campaign-'));
  await build({
    ...{ root: ROOT, configFile: false, logLevel: 'warn' },
    ssr: { noExternal: true, external: ['koffi'] },
    build: {
      ...{ ssr: true, outDir: directory, minify: false, target: 'esnext' },
      rolldownOptions: {
        input: INPUTS.map((input) => join(ROOT, 'src', input)),
        output: { entryFileNames: '[name].js', chunkFileNames: '[name]-[hash].js' },
      },
    },
  });
  const environment = {
    STASIS_TEST_PROGRAM: join(directory, 'main.js'),
    NODE_COMPILE_CACHE: join(directory, 'compiled'),
  };
  return { environment, [Symbol.asyncDispose]: () => rm(directory, { recursive: true, force: true }) };
}

/** One that ends in peace leaves what Node compiled to all after it; one that is killed doesn't. */
export async function leaveCompiled(): Promise<void> {
  await using lab = await Lab.create();
  await lab.endDaemon('SIGTERM');
}
