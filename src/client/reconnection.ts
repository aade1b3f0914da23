/** The patience of a client whose stream broke: a daemon that is being restarted is back within seconds. */
import { StasisError } from '../errors.ts';

const MOST_ATTEMPTS = 10;
const FIRST_DELAY_MS = 50;
const LONGEST_DELAY_MS = 2000;

/** Brings the daemon back, when its user is the one who starts it; rejects when that can't be done. */
export type Revive = (signal: AbortSignal | undefined) => Promise<void>;

export class Reconnection {
  #attempts = 0;
  readonly #revive: Revive | undefined;
  readonly #signal: AbortSignal | undefined;

  constructor(revive: Revive | undefined, signal: AbortSignal | undefined) {
    this.#revive = revive;
    this.#signal = signal;
  }

  /** Something arrived: whatever breaks next is a new break. */
  succeeded(): void {
    this.#attempts = 0;
  }

  /**
   * Resolves when it is time for the next attempt, after at most 2 s.
   *
   * @throws the error itself when it isn't about the connection or came 10 times in a row; the signal's reason
   */
  async after(error: unknown): Promise<void> {
    const lost = error instanceof StasisError && error.code === 'daemon-unreachable';
    if (!lost || this.#attempts === MOST_ATTEMPTS) throw error;
    const delayMs = Math.min(FIRST_DELAY_MS * 2 ** this.#attempts, LONGEST_DELAY_MS);
    this.#attempts += 1;
    // Nothing announces that a daemon is back, so time is all there is to wait for.
    await delay(delayMs, this.#signal);
    await this.#revive?.(this.#signal);
  }
}

/** Resolves after a time, or rejects with the signal's reason: timers that browsers have too. */
function delay(delayMs: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted === true) return reject(StasisError.from(signal.reason)); // no event tells of that any more
    const giveUp = () => {
      clearTimeout(timer);
      reject(StasisError.from(signal?.reason));
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', giveUp);
      resolve();
    }, delayMs);
    signal?.addEventListener('abort', giveUp, { once: true });
  });
}
