/** Schedules as clients see them. */
import type { Schedule } from '../api/schedules.ts';
import type { Catalog } from '../catalog/database.ts';
import { lastRuns, listSchedules, type RunRecord, type ScheduleRecord } from '../catalog/schedules.ts';
import { storedSpec } from '../guests/schedules.ts';
import { timetable } from '../timetable.ts';
import { beginsAt } from '../policy/due.ts';

export interface ScheduleAndRun {
  readonly record: ScheduleRecord;
  readonly lastRun: RunRecord | undefined;
}

/** By guest, in two queries however many there are. @param guests UUIDs */
export async function schedulesOf(
  catalog: Catalog,
  guests: readonly string[],
): Promise<Map<string, ScheduleAndRun[]>> {
  const records = await listSchedules(catalog, guests);
  if (records.length === 0) return new Map();
  const runs = await lastRuns(catalog, guests);
  const both = records.map((record) => ({
    record,
    lastRun: runs.find(({ guest, schedule }) => guest === record.guest && schedule === record.name),
  }));
  return Map.groupBy(both, ({ record }) => record.guest);
}

/** As it is now: when it is next due depends on the time. */
export function scheduleView({ record, lastRun }: ScheduleAndRun): Schedule {
  const spec = storedSpec(record);
  return {
    name: record.name,
    ...spec,
    paused: record.paused === 1,
    createdAt: record.createdAt,
    nextRunAt: record.paused === 1 ? null : nextRunAt(record),
    lastRun: lastRun === undefined ? null : runView(lastRun),
  };
}

function nextRunAt(record: ScheduleRecord): string | null {
  const { guest, name, decidedUntil } = record;
  const spec = storedSpec(record);
  const times = timetable(spec);
  const beginMs = (dueMs: number | null) => (dueMs === null ? null : beginsAt({ guest, name, spec }, dueMs));
  const first = beginMs(times.next(Date.parse(decidedUntil)));
  // What was missed meanwhile is about to be decided; it is not when it next begins by itself.
  const next = first === null || first > Date.now() ? first : beginMs(times.next(Date.now()));
  return next === null ? null : new Date(next).toISOString();
}

function runView({ dueAt, state, endedAt, image, operation, message }: RunRecord): Schedule['lastRun'] {
  return { dueAt, state, endedAt, image, operation, message };
}
