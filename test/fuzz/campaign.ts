/**
 * `npm run fuzz -- [--target NAME]… [--seconds N] [--seed N]`: fuzzes what reads foreign bytes, one target after the other. An input
 * that is a finding is kept in the target's corpus, and so is what reached something new; look at what is to be committed.
 */
import { parseArgs } from 'node:util';
import { Worker } from 'node:worker_threads';
import { keep, readCorpus, replaceFound } from './corpus.ts';
import { LARGEST_INPUT_BYTES } from './mutate.ts';
import { TARGETS } from './targets.ts';
import type { FuzzerTask, Report } from './worker.ts';

/** So long nothing is heard of a thread before its input is taken to have no end. */
const HANGS_AFTER_MS = 120_000;
const MOST_HEAP_MIB = 2048;
/** Corpora are replayed by every test run. */
const KEPT = { inputs: 60, bytes: 8 << 10 };

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      target: { type: 'string', multiple: true },
      seconds: { type: 'string', default: '60' },
      seed: { type: 'string', default: String(Date.now() % 1e9) },
    },
  });
  const names = values.target ?? TARGETS.map(({ name }) => name);
  print(`seed ${values.seed}`);
  for (const target of names) {
    const isGood = await fuzz(target, Number(values.seconds), Number(values.seed));
    if (!isGood) process.exitCode = 1;
  }
}

/** @returns whether nothing was found */
async function fuzz(target: string, seconds: number, seed: number): Promise<boolean> {
  const trying = new SharedArrayBuffer(4 + Math.max(LARGEST_INPUT_BYTES, ...sizesIn(target)));
  const task: FuzzerTask = { target, seconds, seed, trying };
  const worker = new Worker(new URL('worker.ts', import.meta.url), {
    workerData: task,
    resourceLimits: { maxOldGenerationSizeMb: MOST_HEAP_MIB },
  });
  const end = await watched(worker, target);
  await worker.terminate();
  if (end.kind === 'done') {
    const { inputs, reached } = end.progress;
    const found = keepers(
      target,
      end.corpus.map((input) => Buffer.from(input)),
    );
    replaceFound(target, found);
    print(
      `${target}: ${inputs} inputs in ${seconds} s, ${reached} characters reached, ${found.length} inputs kept`,
    );
    return true;
  }
  const input = end.kind === 'finding' ? Buffer.from(end.input) : inputIn(trying);
  print(`${target}: ${end.what}\n  kept as ${keep(target, 'crash', input)}`);
  return false;
}

type End =
  | Extract<Report, { kind: 'done' | 'finding' }>
  /** it did not say so itself: it ran without end, or out of memory */
  | { readonly kind: 'lost'; readonly what: string };

function watched(worker: Worker, target: string): Promise<End> {
  const { promise, resolve } = Promise.withResolvers<End>();
  const hangs = () => resolve({ kind: 'lost', what: `no end after ${HANGS_AFTER_MS / 1000} s` });
  let timer = setTimeout(hangs, HANGS_AFTER_MS);
  worker.on('message', (report: Report) => {
    clearTimeout(timer);
    if (report.kind !== 'progress') return resolve(report);
    timer = setTimeout(hangs, HANGS_AFTER_MS);
    const { inputs, corpus, reached } = report.progress;
    print(`${target}: ${inputs} inputs, ${corpus} in the corpus, ${reached} characters reached`);
  });
  worker.on('error', (error) => resolve({ kind: 'lost', what: error.stack ?? error.message }));
  return promise.finally(() => clearTimeout(timer));
}

/** What is small, and not among the examples. */
function keepers(target: string, corpus: readonly Buffer[]): Buffer[] {
  const examples = readCorpus(target).filter(({ name }) => !name.startsWith('found-'));
  return corpus
    .filter((input) => input.length <= KEPT.bytes && !examples.some(({ bytes }) => bytes.equals(input)))
    .slice(0, KEPT.inputs);
}

function sizesIn(target: string): number[] {
  return readCorpus(target).map(({ bytes }) => bytes.length);
}

function inputIn(trying: SharedArrayBuffer): Buffer {
  const shared = Buffer.from(trying);
  return Buffer.from(shared.subarray(4, 4 + shared.readUInt32BE()));
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}

await main();
