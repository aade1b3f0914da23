/**
 * Sums a file in a process of its own, which can be ended at any instant. One that nobody waits for has the lowest priority for
 * processor and disk: nothing of it is in the way of whatever else is done.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { StasisError, type ErrorBody } from '../errors.ts';
import { ENDING_WITH_US } from '../ending-with-us.ts';
import { programFile } from '../installation.ts';
import { throwIfAborted } from '../qemu/wait.ts';
import { fromStored } from '../stored.ts';
import type { PiecesRequest } from './file-pieces.ts';
import { RECORD, recordsOf } from './file-sum-records.ts';
import { PIECE_BYTES, SumBuilder, type FileSum } from './file-sum.ts';

const PROGRAM = programFile('storage/file-sum-main');
/** ionice(1), whose class 3 reads when nobody else does (`-t`: where that can't be, as it is); nice(1) */
const LOWEST_PRIORITY = ['ionice', '-t', '-c', '3', 'nice', '-n', '19'] as const;

export interface SumOptions {
  readonly signal?: AbortSignal | undefined;
  /** read no faster, and at the lowest priority: nobody waits for it */
  readonly bytesPerSecond?: number | undefined;
  /** what an earlier attempt on the same content came to; told to whoever wants to go on later */
  readonly begun?: SumBuilder | undefined;
  readonly onBegun?: (sum: SumBuilder) => void;
  readonly onProgress?: ((bytesDone: number, bytesTotal: number) => void) | undefined;
}

/** @throws StasisError `disk-missing`, `storage-failed` with what the system said, `cancelled` */
export async function sumFile(path: string, options: SumOptions = {}): Promise<FileSum> {
  const { signal, bytesPerSecond } = options;
  throwIfAborted(signal, `reading ${path}`);
  const request: PiecesRequest = { path, bytesPerSecond, fromPiece: options.begun?.nextPiece ?? 0 };
  const [starter, ...ending] = ENDING_WITH_US;
  const node = [process.execPath, '--disable-warning=ExperimentalWarning', PROGRAM, JSON.stringify(request)];
  const priority = bytesPerSecond === undefined ? [] : LOWEST_PRIORITY;
  const child = spawn(starter, [...ending, ...priority, ...node], {
    env: {},
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const closed = once(child, 'close');
  const kill = (): void => void child.kill('SIGKILL');
  signal?.addEventListener('abort', kill, { once: true });
  try {
    const [sum, complaint] = await Promise.all([follow(child.stdout, options), text(child.stderr), closed]);
    throwIfAborted(signal, `reading ${path}`);
    if (child.exitCode !== 0 || sum === undefined) throw failure(path, complaint);
    return sum.finish();
  } finally {
    signal?.removeEventListener('abort', kill);
    kill();
  }
}

/** @returns undefined when it ended before it knew the file's size */
async function follow(stream: AsyncIterable<Buffer>, options: SumOptions): Promise<SumBuilder | undefined> {
  let sum: SumBuilder | undefined;
  for await (const { kind, number, sha256 } of recordsOf(stream)) {
    if (kind === RECORD.size) {
      sum = options.begun?.sizeBytes === number ? options.begun : new SumBuilder(number);
      options.onBegun?.(sum);
    } else if (kind === RECORD.piece) sum?.add(number, sha256);
    else sum?.skipTo(number);
    if (sum !== undefined)
      options.onProgress?.(Math.min(sum.nextPiece * PIECE_BYTES, sum.sizeBytes), sum.sizeBytes);
  }
  return sum;
}

function failure(path: string, complaint: string): StasisError {
  if (!complaint.startsWith('{'))
    return new StasisError('internal', `${path} could not be summed: ${complaint}`);
  const { code, message } = fromStored<ErrorBody>(complaint);
  if (/ENOENT/.test(message)) return new StasisError('disk-missing', `the file ${path} is not there`);
  return new StasisError(code, `${path} can't be read: ${message}`, { details: { path } });
}
