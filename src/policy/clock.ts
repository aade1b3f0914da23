/** The time of day, and waiting for one: given to who depends on it, so that a test can have its own. */
import { setTimeout as delay } from 'node:timers/promises';

export interface Clock {
  /** ms since 1970 */
  now(): number;
  /** Resolves after so long, or as soon as the signal is aborted. */
  sleep(durationMs: number, signal: AbortSignal): Promise<void>;
}

export const SYSTEM_CLOCK: Clock = {
  now: Date.now,
  async sleep(durationMs, signal) {
    try {
      await delay(durationMs, undefined, { signal });
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  },
};
