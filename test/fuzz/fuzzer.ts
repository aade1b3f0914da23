/**
 * A coverage-guided fuzzer: inputs are made from the corpus, those that reach something new of the sources are put into it, and
 * what a reader must not do is a finding. V8 counts what is reached; to ask it takes as long as some hundred inputs, so it is
 * asked after many, and only when there was something new, which of them it was.
 */
import { messageOf } from '../../src/errors.ts';
import { Random } from '../support/random.ts';
import { Coverage, Territory, type Reached } from './coverage.ts';
import { mutate } from './mutate.ts';
import { isTyped, type Target } from './target.ts';

const BATCH = 100;
/** No input is so large that a reader may think longer about it. */
const SLOWEST_MS = 1_000;

export interface Finding {
  readonly what: string;
  readonly input: Buffer;
}

/** @returns what is wrong with how a reader took an input, in words; undefined: nothing */
export async function judge(target: Target, input: Buffer): Promise<string | undefined> {
  const first = await judgeOnce(target, input);
  if (first?.isSlow !== true) return first?.what;
  // Where the host steals time unseen, that may have been it.
  const again = await judgeOnce(target, input);
  return again?.what;
}

interface Verdict {
  readonly what: string;
  readonly isSlow: boolean;
}

async function judgeOnce(target: Target, input: Buffer): Promise<Verdict | undefined> {
  const start = process.threadCpuUsage();
  try {
    await target.read(input);
  } catch (error) {
    if (!isTyped(error, target))
      return {
        what: error instanceof Error ? (error.stack ?? error.message) : messageOf(error),
        isSlow: false,
      };
  }
  const { user, system } = process.threadCpuUsage(start);
  const tookMs = (user + system) / 1000;
  if (tookMs <= SLOWEST_MS) return undefined;
  return { what: `took ${Math.round(tookMs)} ms for ${input.length} bytes`, isSlow: true };
}

export interface Progress {
  readonly inputs: number;
  readonly corpus: number;
  /** characters of the sources that were run */
  readonly reached: number;
}

export class Fuzzer implements Disposable {
  readonly #target: Target;
  readonly #coverage: Coverage;
  readonly #territory = new Territory();
  readonly #random: Random;
  readonly #onInput: (input: Buffer) => void;
  readonly #corpus: Buffer[];
  #inputs = 0;

  private constructor(target: Target, coverage: Coverage, options: FuzzerOptions) {
    this.#target = target;
    this.#coverage = coverage;
    this.#random = new Random(options.seed);
    this.#onInput = options.onInput ?? (() => undefined);
    this.#corpus = [...options.corpus];
  }

  static async start(target: Target, options: FuzzerOptions): Promise<Fuzzer> {
    const coverage = await Coverage.start();
    const fuzzer = new Fuzzer(target, coverage, options);
    await fuzzer.#run(options.corpus.length === 0 ? [Buffer.alloc(0)] : options.corpus);
    fuzzer.#territory.add(await coverage.take());
    return fuzzer;
  }

  get progress(): Progress {
    return { inputs: this.#inputs, corpus: this.#corpus.length, reached: this.#territory.size };
  }

  /** Makes and tries a number of inputs. @returns the first finding */
  async batch(): Promise<Finding | undefined> {
    const material = { others: this.#corpus, words: this.#target.words };
    const inputs = Array.from({ length: BATCH }, () => {
      // What was found last is not yet worn out.
      const fresh = this.#random.between(0, 1) === 0 ? this.#corpus.slice(-10) : this.#corpus;
      return mutate(this.#random.of(fresh), this.#target.syntax, this.#random, material);
    });
    const finding = await this.#run(inputs);
    if (finding !== undefined) return finding;
    if (this.#territory.isNew(await this.#coverage.take())) await this.#keepNew(inputs);
    return undefined;
  }

  /** The smallest inputs that together reach all that the corpus does. */
  async distilled(): Promise<Buffer[]> {
    const territory = new Territory();
    const kept: Buffer[] = [];
    for (const input of this.#corpus.toSorted((a, b) => a.length - b.length))
      if (territory.add(await this.#reachOf(input))) kept.push(input);
    return kept;
  }

  [Symbol.dispose](): void {
    this.#coverage[Symbol.dispose]();
  }

  async #keepNew(inputs: readonly Buffer[]): Promise<void> {
    for (const input of inputs) if (this.#territory.add(await this.#reachOf(input))) this.#corpus.push(input);
  }

  async #reachOf(input: Buffer): Promise<Reached> {
    await this.#run([input]);
    return this.#coverage.take();
  }

  async #run(inputs: readonly Buffer[]): Promise<Finding | undefined> {
    for (const input of inputs) {
      this.#onInput(input);
      const what = await judge(this.#target, input);
      this.#inputs += 1;
      if (what !== undefined) return { what, input };
    }
    return undefined;
  }
}

export interface FuzzerOptions {
  readonly corpus: readonly Buffer[];
  readonly seed: number;
  /** told of each input before it is tried */
  readonly onInput?: (input: Buffer) => void;
}
