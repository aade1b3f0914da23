/**
 * When something on a schedule is due, and waiting for it. The clock is given, so that a test needn't wait: it may stand
 * still, jump and go back, as that of a host does.
 */
import { Cron } from 'croner';
import { setTimeout as delay } from 'node:timers/promises';
import { StasisError, messageOf } from '../errors.ts';

/** A cron expression of five or six fields, in a time zone. */
export interface CronTime {
  readonly expression: string;
  /** IANA name, `Europe/Berlin`; the host's own when absent */
  readonly timeZone?: string | undefined;
}

export interface Clock {
  /** milliseconds since 1970 */
  now(): number;
  /** Resolves when the clock says so late, or is set past it. @throws the signal's reason */
  waitUntil(atMs: number, signal: AbortSignal): Promise<void>;
}

/** A host that slept, or whose clock was set, is noticed so late at most. */
const LOOK_EVERY_MS = 30_000;

export const systemClock: Clock = {
  now: () => Date.now(),
  async waitUntil(atMs, signal) {
    for (;;) {
      signal.throwIfAborted();
      const leftMs = atMs - Date.now();
      if (leftMs <= 0) return;
      await delay(Math.min(leftMs, LOOK_EVERY_MS), undefined, { signal, ref: false });
    }
  },
};

/**
 * The first time after `afterMs` at which it is due, in milliseconds since 1970; undefined when there is none any more.
 * @throws StasisError `invalid-request` that says what is wrong with expression or time zone
 */
export function nextTime({ expression, timeZone }: CronTime, afterMs: number): number | undefined {
  try {
    const cron = new Cron(expression, {
      paused: true,
      ...(timeZone === undefined ? {} : { timezone: timeZone }),
    });
    return cron.nextRun(new Date(afterMs))?.getTime();
  } catch (error) {
    throw new StasisError(
      'invalid-request',
      `"${expression}"${timeZone === undefined ? '' : ` in "${timeZone}"`} is not a time like "0 3 * * 0" (minute, hour, day, month, weekday): ${messageOf(error)}`,
      { cause: error },
    );
  }
}
