/** Tells many the same, some at a time: others are served between two slices, and while a guest stands still nobody is told. */
import { stillness } from '../stillness.ts';

/** So many take about a millisecond: each is a write to a socket. */
const SLICE = 50;

type Listener<Message> = (message: Message) => void;

interface Waiting<Message> {
  readonly message: Message;
  readonly number: number;
  readonly latestOf: string | undefined;
}

export class FanOut<Message> {
  /** with the number of the first message that each is told */
  readonly #listeners = new Map<Listener<Message>, number>();
  #waiting: Waiting<Message>[] = [];
  #isTelling = false;
  #next = 0;

  get size(): number {
    return this.#listeners.size;
  }

  /** @param listener is told whatever comes from now on, in its order. It must not throw. @returns how to stop */
  listen(listener: Listener<Message>): () => void {
    this.#listeners.set(listener, this.#next);
    return () => this.#listeners.delete(listener);
  }

  /** @param latestOf what this is the state of: an older one that nobody was told of yet is left out */
  tell(message: Message, latestOf?: string): void {
    if (this.#listeners.size === 0) return;
    if (latestOf !== undefined) this.#waiting = this.#waiting.filter((older) => older.latestOf !== latestOf);
    this.#waiting.push({ message, latestOf, number: this.#next });
    this.#next += 1;
    if (!this.#isTelling) void this.#tellAll();
  }

  async #tellAll(): Promise<void> {
    this.#isTelling = true;
    await stillness.turn();
    while (this.#waiting.length > 0) {
      // What has come until now is told in one go: that is one write to each.
      const messages = this.#waiting;
      this.#waiting = [];
      const listeners = [...this.#listeners];
      for (let begin = 0; begin < listeners.length; begin += SLICE) {
        for (const [listener, first] of listeners.slice(begin, begin + SLICE))
          for (const { message, number } of messages)
            if (number >= first && this.#listeners.has(listener)) listener(message); // who has left is told nothing
        await stillness.turn();
      }
    }
    this.#isTelling = false;
  }
}
