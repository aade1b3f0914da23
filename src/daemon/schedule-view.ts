/** Schedules as clients see them. */
import type { Schedule } from '../api/schedules.ts';
import { lastRuns, listSchedules, type RunRecord, type ScheduleRecord } from '../catalog/schedules.ts';
import { storedSpec } from '../guests/schedules.ts';
import { timetable } from '../timetable.ts';
import type { Host } from '../guests/host.ts';
import { beginsAt } from '../policy/due.ts';

/** By guest, in two queries however many there are. @param guests UUIDs */
export async function scheduleViews(host: Host, guests: readonly string[]): Promise<Map<string, Schedule[]>> {
  const records = await listSchedules(host.catalog, guests);
  if (records.length === 0) return new Map();
  const runs = await lastRuns(host.catalog, guests);
  const byGuest = Map.groupBy(records, ({ guest }) => guest);
  const view = (record: ScheduleRecord) =>
    scheduleView(
      record,
      runs.find(({ guest, schedule }) => guest === record.guest && schedule === record.name),
    );
  return new Map([...byGuest].map(([guest, all]) => [guest, all.map(view)]));
}

function scheduleView(record: ScheduleRecord, run: RunRecord | undefined): Schedule {
  const spec = storedSpec(record);
  return {
    name: record.name,
    ...spec,
    paused: record.paused === 1,
    createdAt: record.createdAt,
    nextRunAt: record.paused === 1 ? null : nextRunAt(record),
    lastRun: run === undefined ? null : runView(run),
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
