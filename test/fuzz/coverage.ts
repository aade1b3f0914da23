/** What of our sources an input reaches, as V8 counts it in this thread (`Profiler` of the inspector's protocol). */
import type { Profiler } from 'node:inspector';
import { Session } from 'node:inspector/promises';

const SOURCES = new URL('../../src/', import.meta.url).href;

/** By script, for each of its characters: 1 when the code there ran. */
export type Reached = ReadonlyMap<string, Uint8Array>;

export class Coverage implements Disposable {
  readonly #session = new Session();

  private constructor() {
    this.#session.connect();
  }

  static async start(): Promise<Coverage> {
    const coverage = new Coverage();
    await coverage.#session.post('Profiler.enable');
    await coverage.#session.post('Profiler.startPreciseCoverage', { callCount: true, detailed: true });
    return coverage;
  }

  /** What was reached since the last call. */
  async take(): Promise<Reached> {
    const { result } = await this.#session.post('Profiler.takePreciseCoverage');
    const ours = result.filter(
      ({ url, functions }) =>
        url.startsWith(SOURCES) && functions.some(({ ranges }) => ranges.some(({ count }) => count > 0)),
    );
    return new Map(ours.map((script) => [script.url, reachedIn(script)]));
  }

  [Symbol.dispose](): void {
    this.#session.disconnect();
  }
}

/** An inner range says of its part what an outer one can't. */
function reachedIn({ functions }: Profiler.ScriptCoverage): Uint8Array {
  const ranges = functions.flatMap((each) => each.ranges);
  const reached = new Uint8Array(Math.max(0, ...ranges.map(({ endOffset }) => endOffset)));
  for (const { startOffset, endOffset, count } of ranges)
    reached.fill(count > 0 ? 1 : 0, startOffset, endOffset);
  return reached;
}

/** All that was reached so far. */
export class Territory {
  readonly #scripts = new Map<string, Uint8Array>();
  #size = 0;

  /** in characters of the sources */
  get size(): number {
    return this.#size;
  }

  isNew(reached: Reached): boolean {
    return [...reached].some(([url, now]) => {
      const known = this.#scripts.get(url);
      // A loop over indices: each script has tens of thousands of them.
      for (let at = 0; at < now.length; at += 1) if (now[at] === 1 && known?.[at] !== 1) return true;
      return false;
    });
  }

  /** @returns whether some of it is new */
  add(reached: Reached): boolean {
    const before = this.#size;
    for (const [url, now] of reached) {
      const known = this.#knownOf(url, now.length);
      for (let at = 0; at < now.length; at += 1) {
        if (now[at] !== 1 || known[at] === 1) continue;
        known[at] = 1;
        this.#size += 1;
      }
    }
    return this.#size > before;
  }

  #knownOf(url: string, length: number): Uint8Array {
    const known = this.#scripts.get(url);
    if (known !== undefined && known.length >= length) return known;
    const longer = new Uint8Array(length);
    longer.set(known ?? []);
    this.#scripts.set(url, longer);
    return longer;
  }
}
