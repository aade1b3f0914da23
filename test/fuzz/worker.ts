/** A fuzzer in a thread of its own, so that an input which never ends, or fills the memory, ends only this thread. */
import { parentPort, workerData } from 'node:worker_threads';
import { readCorpus } from './corpus.ts';
import { Fuzzer, type Progress } from './fuzzer.ts';
import { TARGETS } from './targets.ts';

export interface FuzzerTask {
  readonly target: string;
  readonly seconds: number;
  readonly seed: number;
  /** where the input stands that is tried: 4 bytes of its length, and itself */
  readonly trying: SharedArrayBuffer;
}

export type Report =
  | { readonly kind: 'progress'; readonly progress: Progress }
  | { readonly kind: 'finding'; readonly what: string; readonly input: Uint8Array }
  | { readonly kind: 'done'; readonly progress: Progress; readonly corpus: readonly Uint8Array[] };

const PROGRESS_MS = 5_000;

async function main({ target: name, seconds, seed, trying }: FuzzerTask): Promise<Report> {
  const [target] = TARGETS.filter((each) => each.name === name);
  if (target === undefined) throw new Error(`there is no target ${name}`);
  const shared = Buffer.from(trying);
  const onInput = (input: Buffer) => {
    input.copy(shared, 4);
    shared.writeUInt32BE(input.length);
  };
  const corpus = readCorpus(name).map(({ bytes }) => bytes);
  using fuzzer = await Fuzzer.start(target, { corpus, seed, onInput });
  const end = performance.now() + seconds * 1000;
  let told = 0;
  while (performance.now() < end) {
    const finding = await fuzzer.batch();
    if (finding !== undefined) return { kind: 'finding', ...finding };
    if (performance.now() - told < PROGRESS_MS) continue;
    told = performance.now();
    report({ kind: 'progress', progress: fuzzer.progress });
  }
  return { kind: 'done', progress: fuzzer.progress, corpus: await fuzzer.distilled() };
}

function report(message: Report): void {
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread's port has no origin
  parentPort?.postMessage(message);
}

// oxlint-disable-next-line typescript/no-unsafe-type-assertion -- it is what campaign.ts starts it with
report(await main(workerData as FuzzerTask));
