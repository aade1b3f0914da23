/**
 * When a schedule's next run is due, and what becomes of those that were due meanwhile. Pure: a schedule knows up to when all is
 * decided, and each decision moves that on to a time at which it was due. So no due time is decided twice; a clock that
 * jumps ahead, or a host that slept, brings one run, not as many as were missed; one that is set back a little is waited for.
 */
import { createHash } from 'node:crypto';
import type { ScheduleSpec } from '../guests/schedules.ts';
import { timetable, type Timetable } from '../timetable.ts';

export interface DueSchedule {
  readonly guest: string;
  readonly name: string;
  readonly spec: ScheduleSpec;
  readonly decidedUntilMs: number;
}

export type Decision =
  /** nothing is due before `untilMs`; null: never again */
  | { readonly what: 'wait'; readonly untilMs: number | null }
  | { readonly what: 'run'; readonly dueMs: number; readonly isLate: boolean }
  | { readonly what: 'miss'; readonly dueMs: number }
  /** the clock was far ahead when this was last looked at, and is right again: begin again from `nowMs` */
  | { readonly what: 'rewind' };

/** A run that begins later than this was missed. */
export const LATE_MS = 60_000;
/** What cron does, too: a clock set back by less catches up by itself. */
export const REWIND_MS = 3 * 3600_000;

export function decide(schedule: DueSchedule, nowMs: number): Decision {
  const { spec, decidedUntilMs } = schedule;
  if (decidedUntilMs - nowMs > REWIND_MS) return { what: 'rewind' };
  const times = timetable(spec);
  const dueMs = lastBegun(schedule, times, nowMs);
  if (dueMs === null) {
    const nextMs = times.next(decidedUntilMs);
    return { what: 'wait', untilMs: nextMs === null ? null : beginsAt(schedule, nextMs) };
  }
  const isLate = nowMs - beginsAt(schedule, dueMs) > LATE_MS;
  if (isLate && spec.missed === 'skip') return { what: 'miss', dueMs };
  return { what: 'run', dueMs, isLate };
}

/** The newest due time that is not decided and whose run is to have begun. Jitter is shorter than what lies between two. */
function lastBegun(schedule: DueSchedule, times: Timetable, nowMs: number): number | null {
  let dueMs = times.last(nowMs);
  while (dueMs !== null && dueMs > schedule.decidedUntilMs) {
    if (beginsAt(schedule, dueMs) <= nowMs) return dueMs;
    dueMs = times.last(dueMs - 1);
  }
  return null;
}

/** When the run that is due at an instant begins: its jitter is drawn by guest, schedule and due time, so it can be told before. */
export function beginsAt(
  { guest, name, spec }: Pick<DueSchedule, 'guest' | 'name' | 'spec'>,
  dueMs: number,
): number {
  const drawn = createHash('sha256').update(`${guest}\n${name}\n${dueMs}`).digest().readUInt32BE() / 2 ** 32;
  return dueMs + Math.floor(drawn * spec.jitterSeconds * 1000);
}
