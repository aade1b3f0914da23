/** Schedules and what they keep, as a person reads them. */
import type { Retention, RetentionPlan, Schedule } from '../api/schedules.ts';
import { renderFields } from './fields.ts';
import { paint } from './style.ts';
import { renderTable, type Cell, type Column } from './table.ts';
import { count, formatAge, formatBytes, formatDate, formatDuration, formatGain } from './units.ts';

const SCHEDULE_COLUMNS: readonly Column[] = [
  { title: 'GUEST', flexible: true },
  { title: 'SCHEDULE', flexible: true },
  { title: 'CRON' },
  { title: 'TIME ZONE', spare: true },
  { title: 'NEXT RUN' },
  { title: 'LAST DUE' },
  { title: 'OUTCOME', flexible: true },
];

export interface GuestSchedule {
  readonly guest: string;
  readonly schedule: Schedule;
}

export function renderSchedules(all: readonly GuestSchedule[], width: number): string[] {
  if (all.length === 0) return ['no schedules yet: stasis schedule add GUEST NAME --cron "0 3 * * *"'];
  return renderTable(SCHEDULE_COLUMNS, all.map(scheduleRow), width);
}

function scheduleRow({ guest, schedule }: GuestSchedule): Cell[] {
  const { name, cron, timeZone, lastRun, jitterSeconds } = schedule;
  return [
    guest,
    name,
    jitterSeconds === 0 ? cron : `${cron} +${formatDuration(jitterSeconds * 1000)}`,
    timeZone ?? "the host's",
    nextRun(schedule),
    lastRun === null ? 'never' : formatDate(lastRun.dueAt),
    { text: outcomeOf(lastRun), style: lastRun?.state === 'failed' ? 'red' : [] },
  ];
}

function nextRun({ paused, nextRunAt }: Schedule): string {
  if (paused) return 'paused';
  return nextRunAt === null ? 'never' : formatDate(nextRunAt);
}

function outcomeOf(run: Schedule['lastRun']): string {
  if (run === null) return '';
  if (run.state === 'waiting') return run.operation === null ? 'waiting' : 'under way';
  return run.state === 'done' ? (run.image ?? 'done') : `${run.state}: ${run.message}`;
}

/** `0 3 * * * Europe/Berlin, next 2026-11-25 03:04:10` */
export function describeSchedule(schedule: Schedule): string {
  const { cron, timeZone, lastRun } = schedule;
  const last = lastRun === null ? '' : `, last ${outcomeOf(lastRun)}`;
  return `${cron}${timeZone === null ? '' : ` ${timeZone}`}, next ${nextRun(schedule)}${last}`;
}

/** `last 3, daily 7, quota 200 GiB`; undefined: all images stay. */
export function describeRules(rules: Retention): string | undefined {
  const parts: string[] = [];
  for (const [rule, word] of RULES) if (rules[rule] > 0) parts.push(`${word} ${rules[rule]}`);
  if (rules.keepWithinSeconds > 0) parts.push(`within ${describeSpan(rules.keepWithinSeconds)}`);
  if (rules.quotaBytes !== null) parts.push(`quota ${formatBytes(rules.quotaBytes)}`);
  if (rules.quotaImages !== null) parts.push(`quota ${count(rules.quotaImages, 'image')}`);
  if (parts.length > 0 && rules.all) parts.push('also those made by hand');
  return parts.length === 0 ? undefined : parts.join(', ');
}

const RULES = [
  ['keepLast', 'last'],
  ['keepHourly', 'hourly'],
  ['keepDaily', 'daily'],
  ['keepWeekly', 'weekly'],
  ['keepMonthly', 'monthly'],
  ['keepYearly', 'yearly'],
] as const satisfies readonly (readonly [keyof Retention, string])[];

function describeSpan(seconds: number): string {
  return seconds % 86_400 === 0 ? `${seconds / 86_400} d` : `${seconds / 3600} h`;
}

export function renderRules(rules: Retention): string[] {
  return renderFields([
    ...RULES.map(([rule, word]) => [`keep ${word}`, String(rules[rule])] as const),
    ['keep within', rules.keepWithinSeconds === 0 ? 'none' : describeSpan(rules.keepWithinSeconds)],
    ['made by hand', rules.all ? 'the rules hold for them too' : 'stay'],
    ['quota', rules.quotaBytes === null ? 'none' : formatBytes(rules.quotaBytes)],
    ['quota of images', rules.quotaImages === null ? 'none' : String(rules.quotaImages)],
    ['time zone', rules.timeZone ?? "the host's"],
  ]);
}

const PLAN_COLUMNS: readonly Column[] = [
  { title: 'IMAGE', flexible: true },
  { title: 'TAKEN', align: 'right' },
  { title: '' },
  { title: 'WHY', flexible: true },
  { title: 'STORED', align: 'right', spare: true },
  { title: 'FREES', align: 'right' },
];

/** What the rules would do, image by image. */
export function renderRetentionPlan(plan: RetentionPlan, width: number): string[] {
  const { guest, images, usedBytes, rules, warning } = plan;
  const gone = images.filter(({ keep }) => !keep);
  const rows = images.map((image): Cell[] => [
    image.name,
    formatAge(image.createdAt),
    image.keep ? 'keep' : { text: 'remove', style: 'red' },
    image.reasons.join(', '),
    formatBytes(image.storedBytes),
    formatGain(image),
  ]);
  return [
    `${paint('bold', guest)}  ${describeRules(rules) ?? 'no rules'}`,
    ...(rows.length === 0 ? ['no images'] : renderTable(PLAN_COLUMNS, rows, width)),
    `${count(images.length, 'image')} occupy ${formatBytes(usedBytes)}; ${
      gone.length === 0 ? 'all stay' : `${gone.length} would go, which frees ${formatGain(plan)}`
    }`,
    ...(warning === null ? [] : [paint('yellow', warning)]),
  ];
}
