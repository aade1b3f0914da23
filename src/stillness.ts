/**
 * While a guest stands still in a live save, that save has this process for itself: each of its round trips to QEMU would
 * otherwise wait for whatever is under way, and the guest with it. What can wait does: requests, and telling a thousand clients
 * what happens. Each takes its turn (`turn`), one for each time that Node looks for what has come: however many of them wait, QEMU is
 * heard before the next. So what takes long is done in several turns, none longer than a guest may be made to wait for it.
 */
import { setImmediate as heard } from 'node:timers/promises';

/** So long at most: a guest that stands still longer keeps nobody from an answer. */
const MOST_MS = 250;

class Stillness {
  #guests = 0;
  #over: PromiseWithResolvers<void> | undefined;
  #timer: NodeJS.Timeout | undefined;
  readonly #waiting: (() => void)[] = [];

  /** A guest stands still from now on, until this is disposed of. */
  begin(): Disposable {
    this.#guests += 1;
    if (this.#guests === 1) {
      this.#over = Promise.withResolvers();
      this.#timer = setTimeout(() => this.#end(), MOST_MS).unref();
    }
    let isOver = false;
    return {
      [Symbol.dispose]: () => {
        if (isOver) return;
        isOver = true;
        this.#guests -= 1;
        if (this.#guests === 0) this.#end();
      },
    };
  }

  get isNow(): boolean {
    return this.#over !== undefined;
  }

  /** Resolves, in the order in which it was asked for, when all is heard that has come and no guest stands still, or one has for too long. */
  turn(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#waiting.push(resolve);
    if (this.#waiting.length === 1) void this.#giveTurns();
    return promise;
  }

  async #giveTurns(): Promise<void> {
    while (this.#waiting.length > 0) {
      await heard();
      await this.#over?.promise;
      this.#waiting[0]?.();
      this.#waiting.shift();
    }
  }

  #end(): void {
    clearTimeout(this.#timer);
    this.#over?.resolve();
    this.#over = undefined;
  }
}

export const stillness = new Stillness();
