import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, open, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { StasisError } from '../../errors.ts';
import { programFile } from '../../installation.ts';
import { PAGER_LOG, writePagerRequest } from './pager-files.ts';
import type { PagerRequest } from './pager.ts';
import { PAGER_PROGRAM } from '../process/process-scan.ts';

const PROGRAM = programFile(`qemu/pager/${PAGER_PROGRAM}`);

/** A pager that has been started, and outlives whoever started it. */
export interface PagerProcess {
  readonly pid: number;
  /** Lets it begin: QEMU listens now. @param order whether from the start, or where another pager ended */
  begin(order: 'serve' | 'recover'): void;
  /** Resolves, never rejects, when it has ended, with the last line that it wrote; `undefined` when all went well. */
  readonly ended: Promise<string | undefined>;
}

/**
 * Starts a pager in the run directory of a QEMU, which need not be there yet: both start at the same time. Until it is
 * told to begin it ends with this process.
 * @param program another build of the pager, to measure it
 * @throws StasisError `internal`
 */
export async function startPager(
  runDirectory: string,
  request: PagerRequest,
  program = PROGRAM,
): Promise<PagerProcess> {
  await mkdir(runDirectory, { recursive: true, mode: 0o700 });
  await writePagerRequest(runDirectory, request);
  return launch(runDirectory, program);
}

/** Starts another pager for what the one before it served. @throws StasisError `internal` */
export async function startAnotherPager(runDirectory: string): Promise<PagerProcess> {
  return launch(runDirectory, PROGRAM);
}

async function launch(runDirectory: string, program: string): Promise<PagerProcess> {
  const logFile = join(runDirectory, PAGER_LOG);
  await using log = await open(logFile, 'w', 0o600);
  const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', program], {
    cwd: runDirectory,
    detached: true,
    env: {},
    stdio: ['pipe', log.fd, log.fd],
  });
  const { promise: ended, resolve } = Promise.withResolvers<string | undefined>();
  child.once('exit', (code, signal) => resolve(code === 0 ? undefined : lastWords(logFile, signal)));
  child.unref();
  await once(child, 'spawn');
  const { stdin, pid } = child;
  if (stdin === null || pid === undefined) throw new StasisError('internal', 'the pager has no process');
  stdin.on('error', () => undefined); // it has ended: `ended` tells
  return { pid, ended, begin: (order) => void stdin.end(`${order}\n`) };
}

async function lastWords(logFile: string, signal: NodeJS.Signals | null): Promise<string> {
  if (signal !== null) return `it was ended by ${signal}`;
  const log = await readFile(logFile, 'utf8').catch(() => ''); // gone with its QEMU
  return log.trimEnd().split('\n').at(-1) ?? '';
}
