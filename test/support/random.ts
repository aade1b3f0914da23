/** Random numbers that follow from a seed, so that what they chose can be chosen again. */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** From 0 up to, not including, 1: the generator mulberry32. */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let value = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1);
    value ^= value + Math.imul(value ^ (value >>> 7), value | 61);
    return ((value ^ (value >>> 14)) >>> 0) / 2 ** 32;
  }

  /** A whole number from `first` to `last`. */
  between(first: number, last: number): number {
    return first + Math.floor(this.next() * (last - first + 1));
  }

  /** True so often of 1. */
  chance(probability: number): boolean {
    return this.next() < probability;
  }

  /** One of them. */
  of<T>(choices: readonly T[]): T {
    for (const choice of choices.slice(this.between(0, choices.length - 1))) return choice;
    throw new RangeError('nothing to choose from');
  }
}
