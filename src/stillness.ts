/**
 * While a guest stands still in a live save, that save has this process for itself: each of its round trips to QEMU would
 * otherwise wait for whatever is under way, and the guest with it. What can wait does: new requests, and telling a thousand
 * clients what happens. What takes long is done in slices, each no longer than a guest may be made to wait for it.
 */

/** So long at most: a guest that stands still longer keeps nobody from an answer. */
const MOST_MS = 250;

class Stillness {
  #guests = 0;
  #over: PromiseWithResolvers<void> | undefined;
  #timer: NodeJS.Timeout | undefined;

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

  /** Resolves when no guest stands still, or one has done so for too long. */
  async over(): Promise<void> {
    await this.#over?.promise;
  }

  #end(): void {
    clearTimeout(this.#timer);
    this.#over?.resolve();
    this.#over = undefined;
  }
}

export const stillness = new Stillness();
