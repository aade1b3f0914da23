/** A year of days, those with changes of the clocks among them, and what may be due then. */
import fc from 'fast-check';
import { timetable, type CronTime } from '../../src/timetable.ts';

export const HOUR_MS = 3600_000;
export const DAY_MS = 24 * HOUR_MS;
export const ZONES = ['Europe/Berlin', 'America/New_York', 'Australia/Lord_Howe', 'UTC'] as const;
const CRONS = [
  '30 2 * * *',
  '15 1 * * *',
  '30 1,2,13 * * *',
  '*/10 * * * *',
  '0 * * * *',
  '@daily',
  '0 2 * * 0',
  '0 3 1 * *',
] as const;
export const YEAR_MS = Date.parse('2026-01-01T00:00:00Z');

export const anyZone = fc.constantFrom(...ZONES);
export const anyCron = fc.constantFrom(...CRONS);
export const anyInstant = fc.integer({ min: 0, max: 365 * DAY_MS }).map((ms) => YEAR_MS + ms);
/** On which the clocks change, somewhere. */
export const CHANGES = [
  '2026-03-08',
  '2026-03-29',
  '2026-04-05',
  '2026-10-04',
  '2026-10-25',
  '2026-11-01',
] as const;
export const anyChange = fc.constantFrom(...CHANGES);

/** @param to exclusive */
export function dueBetween(time: CronTime, from: number, to: number): number[] {
  const found: number[] = [];
  const times = timetable(time);
  for (let ms = times.next(from); ms !== null && ms < to; ms = times.next(ms)) found.push(ms);
  return found;
}
