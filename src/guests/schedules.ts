/** A guest's schedules as a user writes them, what is wrong with one, and what their images are called. */
import { NAME_PATTERN } from '../api/constants.ts';
import type { Schedule, ScheduleChange, ScheduleRequest } from '../api/schedules.ts';
import type { ScheduleRecord } from '../catalog/schedules.ts';
import { messageOf } from '../errors.ts';
import { fromStored } from '../stored.ts';
import { timetable, type Timetable } from '../timetable.ts';
import { invalid } from './definition/schema.ts';

/** What the catalog keeps of it as JSON. */
export type ScheduleSpec = Pick<
  Schedule,
  'cron' | 'timeZone' | 'jitterSeconds' | 'quiesce' | 'missed' | 'image'
>;

const NAME = new RegExp(NAME_PATTERN);
/** Of an image's name, for a number when the name is taken. */
const SPARE_CHARACTERS = 4;
/** So many runs are looked at to tell how close they can be. */
const LOOKED_AT = 20;

export function storedSpec({ spec }: Pick<ScheduleRecord, 'spec'>): ScheduleSpec {
  return fromStored<ScheduleSpec>(spec);
}

export function specOf({ cron, ...given }: ScheduleRequest): ScheduleSpec {
  return withChange(
    { cron, timeZone: null, jitterSeconds: 0, quiesce: false, missed: 'catch-up', image: null },
    given,
  );
}

/** @returns the schedule with what was given of it changed */
export function withChange(spec: ScheduleSpec, change: ScheduleChange): ScheduleSpec {
  const { cron, timeZone, jitterSeconds, quiesce, missed, image } = { ...spec, ...change };
  return { cron, timeZone, jitterSeconds, quiesce, missed, image };
}

/** A schedule as it begins: what was due before is not made up for. */
export function newSchedule(
  guest: string,
  name: string,
  spec: ScheduleSpec,
  paused: boolean,
): ScheduleRecord {
  const now = new Date().toISOString();
  return {
    ...{ guest, name, spec: JSON.stringify(spec), paused: paused ? 1 : 0 },
    ...{ createdAt: now, decidedUntil: now },
  };
}

/**
 * The schedules of a definition.
 * @throws StasisError `invalid-definition`
 */
export function readSchedules(guest: string, schedules: readonly ScheduleRequest[]): ScheduleRecord[] {
  const names = new Set<string>();
  return schedules.map((wish) => {
    const { name, paused = false } = wish;
    const spec = specOf(wish);
    const whyNot = names.has(name) ? 'there are two of that name' : whyNotSchedule(name, spec, Date.now());
    if (whyNot !== undefined) throw invalid(`schedule ${name}: ${whyNot}`);
    names.add(name);
    return newSchedule(guest, name, spec, paused);
  });
}

/** What is wrong with a schedule, as the end of a sentence; undefined: nothing. */
export function whyNotSchedule(name: string, spec: ScheduleSpec, nowMs: number): string | undefined {
  let runs: number[];
  try {
    runs = nextRuns(timetable(spec), nowMs);
  } catch (error) {
    return messageOf(error);
  }
  const [first, second] = runs;
  if (first === undefined) return `"${spec.cron}" is never due`;
  const closestMs = Math.min(...runs.slice(1).map((ms, index) => ms - (runs[index] ?? 0)));
  if (spec.jitterSeconds * 1000 >= closestMs)
    return `a jitter of ${spec.jitterSeconds} s is not less than the ${closestMs / 1000} s between two runs`;
  const image = imageName(name, spec, first);
  if (!NAME.test(image) || image.length > 64 - SPARE_CHARACTERS)
    return `"${image}" can't be an image's name: letters, digits, ".", "_" and "-", at most ${64 - SPARE_CHARACTERS}`;
  if (second !== undefined && imageName(name, spec, second) === image)
    return `two runs would both make an image "${image}": let its name tell the time, as %Y-%m-%dT%H%M does`;
  return undefined;
}

function nextRuns(times: Timetable, nowMs: number): number[] {
  const runs: number[] = [];
  for (let ms = times.next(nowMs); ms !== null && runs.length < LOOKED_AT; ms = times.next(ms)) runs.push(ms);
  return runs;
}

/** The name of the image for a due time, in the schedule's own time zone. */
export function imageName(schedule: string, spec: ScheduleSpec, dueMs: number): string {
  const fields = localFields(dueMs, spec.timeZone);
  return (spec.image ?? defaultPattern(schedule, spec)).replaceAll(
    /%([YmdHMS])/g,
    (_, letter: string) => fields[letter] ?? '',
  );
}

function defaultPattern(schedule: string, { cron }: ScheduleSpec): string {
  const hasSeconds = cron.trim().split(/\s+/).length === 6;
  return `${schedule}-%Y-%m-%dT%H%M${hasSeconds ? '%S' : ''}`;
}

const LETTERS: Record<string, string> = {
  year: 'Y',
  month: 'm',
  day: 'd',
  hour: 'H',
  minute: 'M',
  second: 'S',
};

function localFields(ms: number, timeZone: string | null): Record<string, string> {
  const parts = new Intl.DateTimeFormat('en-GB', {
    ...{ year: 'numeric', month: '2-digit', day: '2-digit' },
    ...{ hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23' },
    ...(timeZone === null ? {} : { timeZone }),
  }).formatToParts(ms);
  return Object.fromEntries(parts.map(({ type, value }) => [LETTERS[type] ?? type, value]));
}
