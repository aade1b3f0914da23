/** How long asked-for pages took, from the request's arrival until the last byte was handed to the kernel. */

export interface WaitFigures {
  readonly count: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
}

/** What was being sent and what was being read when a page was asked for that was already among it. */
const PIECES_UNDER_WAY = 2;

export class PageWaits {
  readonly #ms: number[] = [];
  #onTheirWay: { readonly begin: number; pieces: number }[] = [];

  begin(): number {
    return performance.now();
  }

  end(begin: number): void {
    this.#ms.push(performance.now() - begin);
  }

  /** A page was asked for that the push has taken already: it is there, at the latest, two pieces later. */
  alreadyOnItsWay(): void {
    this.#onTheirWay.push({ begin: performance.now(), pieces: PIECES_UNDER_WAY });
  }

  /** A piece of the push has been sent. */
  pushed(): void {
    if (this.#onTheirWay.length === 0) return;
    for (const wait of this.#onTheirWay) if ((wait.pieces -= 1) === 0) this.end(wait.begin);
    this.#onTheirWay = this.#onTheirWay.filter(({ pieces }) => pieces > 0);
  }

  figures(): WaitFigures {
    const sorted = Float64Array.from(this.#ms).toSorted();
    const at = (part: number) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? 0;
    return { count: sorted.length, p50Ms: at(0.5), p99Ms: at(0.99), maxMs: at(1) };
  }
}
