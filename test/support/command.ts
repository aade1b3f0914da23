/** The program as its users run it: a whole process. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';

const MAIN = fileURLToPath(new URL('../../src/main.ts', import.meta.url));

export interface Finished {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  readonly env?: NodeJS.ProcessEnv;
  readonly stdin?: string;
  /** called once the process runs: to interrupt it, for instance */
  readonly meanwhile?: (child: ChildProcess) => void;
}

/** Runs `stasis ARGUMENTS` to its end. */
export async function stasis(argv: readonly string[], options: RunOptions = {}): Promise<Finished> {
  const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', MAIN, ...argv], {
    env: { ...process.env, STASIS_CONNECT: '', ...options.env },
    stdio: 'pipe',
  });
  child.stdin.end(options.stdin ?? '');
  options.meanwhile?.(child);
  const [stdout, stderr, [status]] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    once(child, 'close'),
  ]);
  return { status: typeof status === 'number' ? status : null, stdout, stderr };
}
