/** The time of day, and waiting for one: given to who depends on it, so that a test can have its own. */
import { setTimeout as delay } from 'node:timers/promises';

export interface Clock {
  /** ms since 1970 */
  now(): number;
  /** Resolves after so long, or as soon as the signal is aborted. */
  sleep(durationMs: number, signal: AbortSignal): Promise<void>;
}

/** A host that slept, or whose clock was set, is noticed so late at most. */
const LOOK_EVERY_MS = 30_000;

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

/** Resolves when the clock says so late, or is set past it, or the signal is aborted. */
export async function waitUntil(clock: Clock, atMs: number, signal: AbortSignal): Promise<void> {
  for (;;) {
    const leftMs = atMs - clock.now();
    if (leftMs <= 0 || signal.aborted) return;
    await clock.sleep(Math.min(leftMs, LOOK_EVERY_MS), signal);
  }
}
