/** Tells many the same, some at a time: others are served between two slices, and while a guest stands still nobody is told. */
import { setImmediate as others } from 'node:timers/promises';
import { stillness } from '../stillness.ts';

/** So many take about a millisecond: each is a write to a socket. */
const SLICE = 50;

interface Telling<Message> {
  readonly message: Message;
  readonly latestOf: string | undefined;
  readonly listeners: readonly ((message: Message) => void)[];
}

export class FanOut<Message> {
  readonly #listeners = new Set<(message: Message) => void>();
  #waiting: Telling<Message>[] = [];
  #isTelling = false;

  get size(): number {
    return this.#listeners.size;
  }

  /** @param listener is told whatever comes from now on, in its order. It must not throw. @returns how to stop */
  listen(listener: (message: Message) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /**
   * A few listeners are told before this returns.
   * @param latestOf what this is the state of: an older one that nobody was told of yet is left out
   */
  tell(message: Message, latestOf?: string): void {
    if (this.#listeners.size === 0) return;
    if (latestOf !== undefined) this.#waiting = this.#waiting.filter((older) => older.latestOf !== latestOf);
    this.#waiting.push({ message, latestOf, listeners: [...this.#listeners] });
    if (!this.#isTelling) void this.#tellAll();
  }

  async #tellAll(): Promise<void> {
    this.#isTelling = true;
    if (stillness.isNow) await stillness.over();
    for (let next; (next = this.#waiting.shift()) !== undefined;) {
      const { listeners, message } = next;
      for (let begin = 0; begin < listeners.length; begin += SLICE) {
        for (const listener of listeners.slice(begin, begin + SLICE))
          if (this.#listeners.has(listener)) listener(message); // who has left is told nothing
        if (begin + SLICE >= listeners.length && this.#waiting.length === 0) break;
        await others();
        await stillness.over();
      }
    }
    this.#isTelling = false;
  }
}
