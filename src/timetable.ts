/**
 * When something is due that a cron expression tells. croner reads it: a time of day that a change of the clocks leaves out is
 * due right after the gap, one that comes twice is due once; what is due by an interval (`*`, `/`) goes by the time that really passes.
 */
import { Cron } from 'croner';
import { StasisError, messageOf } from './errors.ts';

export interface CronTime {
  /** five fields, or six with seconds */
  readonly cron: string;
  /** IANA name, `Europe/Berlin`; null: the host's own */
  readonly timeZone: string | null;
}

/** Instants in ms since 1970. */
export interface Timetable {
  /** the first one after an instant; null: never again */
  next(afterMs: number): number | null;
  /** the last one up to an instant, that included; null: never before */
  last(atMs: number): number | null;
}

/** @throws StasisError `invalid-request` that says what is wrong with expression or time zone */
export function timetable(time: CronTime): Timetable {
  const times = readCron(time);
  return {
    next: (afterMs) => times.nextRun(new Date(afterMs))?.getTime() ?? null,
    // croner's own is the last one before, and of whole seconds.
    last: (atMs) => times.previousRuns(1, new Date(secondAfter(atMs)))[0]?.getTime() ?? null,
  };
}

function readCron({ cron, timeZone }: CronTime): Cron {
  try {
    const times = new Cron(cron, {
      paused: true,
      mode: '5-or-6-parts',
      fixedTimeRule: 'no-wildcard',
      ...(timeZone === null ? {} : { timezone: timeZone }),
    });
    times.nextRun(); // only this looks at the time zone
    return times;
  } catch (error) {
    const zone = timeZone === null ? '' : ` in the time zone ${timeZone}`;
    throw new StasisError('invalid-request', `"${cron}"${zone} can't be read: ${messageOf(error)}`, {
      cause: error,
    });
  }
}

function secondAfter(ms: number): number {
  return (Math.floor(ms / 1000) + 1) * 1000;
}
