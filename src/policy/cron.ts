/** When something that the host does on a schedule of its own is due, and waiting for that. */
import { Cron } from 'croner';
import { StasisError, messageOf } from '../errors.ts';
import type { Clock } from './clock.ts';

/** A cron expression of five or six fields, in a time zone. */
export interface CronTime {
  readonly expression: string;
  /** IANA name, `Europe/Berlin`; the host's own when absent */
  readonly timeZone?: string | undefined;
}

/** A host that slept, or whose clock was set, is noticed so late at most. */
const LOOK_EVERY_MS = 30_000;

/**
 * The first time after `afterMs` at which it is due, in milliseconds since 1970; undefined when there is none any more.
 * @throws StasisError `invalid-request` that says what is wrong with expression or time zone
 */
export function nextTime({ expression, timeZone }: CronTime, afterMs: number): number | undefined {
  const zone = timeZone === undefined ? {} : { timezone: timeZone };
  try {
    return new Cron(expression, { paused: true, ...zone }).nextRun(new Date(afterMs))?.getTime();
  } catch (error) {
    throw new StasisError(
      'invalid-request',
      `"${expression}"${timeZone === undefined ? '' : ` in "${timeZone}"`} is not a time like "0 3 * * 0" (minute, hour, day, month, weekday): ${messageOf(error)}`,
      { cause: error },
    );
  }
}

/** Resolves when the clock says so late, or is set past it, or the signal is aborted. */
export async function waitUntil(clock: Clock, atMs: number, signal: AbortSignal): Promise<void> {
  for (;;) {
    const leftMs = atMs - clock.now();
    if (leftMs <= 0 || signal.aborted) return;
    await clock.sleep(Math.min(leftMs, LOOK_EVERY_MS), signal);
  }
}
