/** When a cron expression is due, above all where the clocks change. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { timetable } from '../src/timetable.ts';
import {
  anyCron,
  anyInstant,
  anyZone,
  CHANGES,
  DAY_MS,
  dueBetween,
  HOUR_MS,
  YEAR_MS,
  ZONES,
} from './support/calendar.ts';

const iso = (ms: number) => new Date(ms).toISOString();
const nextOf = (cron: string, timeZone: string, after: string) =>
  iso(timetable({ cron, timeZone }).next(Date.parse(after)) ?? 0);

test('a time is due after the moment that is asked from, in its own zone', () => {
  assert.equal(nextOf('0 3 * * 0', 'UTC', '2026-11-24T20:00:00Z'), '2026-11-29T03:00:00.000Z');
  assert.equal(nextOf('0 3 * * 0', 'UTC', '2026-11-29T03:00:00Z'), '2026-12-06T03:00:00.000Z');
  assert.equal(nextOf('30 4 * * *', 'Europe/Berlin', '2026-07-01T00:00:00Z'), '2026-07-01T02:30:00.000Z');
  assert.equal(nextOf('30 4 * * *', 'Europe/Berlin', '2026-12-01T00:00:00Z'), '2026-12-01T03:30:00.000Z');
});

test('what is no time is refused with words; one that never comes is none', () => {
  const refused = (cron: string, timeZone: string | null, message: RegExp) =>
    assert.throws(() => timetable({ cron, timeZone }), { code: 'invalid-request', message });
  refused('sometimes', null, /"sometimes" can't be read/);
  refused('0 3 * * *', 'Mars/Base', /in the time zone Mars\/Base can't be read/);
  refused('0 0 3 * * * 2030', null, /can't be read/);
  assert.equal(timetable({ cron: '0 0 31 2 *', timeZone: 'UTC' }).next(YEAR_MS), null);
});

test('the last time up to an instant and the next one after it are neighbours', () => {
  fc.assert(
    fc.property(anyCron, anyZone, anyInstant, (cron, timeZone, ms) => {
      const times = timetable({ cron, timeZone });
      const [last, next] = [times.last(ms), times.next(ms)];
      assert.ok(last !== null && next !== null);
      assert.ok(last <= ms && ms < next, `${iso(last)} ${iso(ms)} ${iso(next)}`);
      assert.equal(times.next(last), next);
      assert.equal(times.last(next - 1), last);
      assert.equal(times.last(next), next);
    }),
    { numRuns: 400 },
  );
});

test('a time of day is due exactly once a day, also on the days on which the clocks change', () => {
  for (const timeZone of ZONES)
    for (const cron of ['30 2 * * *', '15 1 * * *', '45 0 * * *', '0 3 * * *']) {
      const days = new Intl.DateTimeFormat('sv-SE', { timeZone });
      const due = dueBetween({ cron, timeZone }, YEAR_MS - 12 * HOUR_MS, YEAR_MS + 364 * DAY_MS);
      const perDay = Map.groupBy(due, (ms) => days.format(ms));
      assert.ok(perDay.size >= 364, `${cron} ${timeZone}: ${perDay.size} days`);
      for (const [day, times] of perDay)
        assert.equal(times.length, 1, `${cron} ${timeZone} on ${day}: ${times.map(iso).join(' ')}`);
    }
});

test('in the gap it is due right after it, in the hour that comes twice at the first of the two', () => {
  const at = (cron: string, timeZone: string, day: string) =>
    dueBetween({ cron, timeZone }, Date.parse(`${day}T00:00Z`), Date.parse(`${day}T12:00Z`)).map(iso);
  assert.deepEqual(at('30 2 * * *', 'Europe/Berlin', '2026-03-29'), ['2026-03-29T01:00:00.000Z']);
  assert.deepEqual(at('30 2 * * *', 'Europe/Berlin', '2026-10-25'), ['2026-10-25T00:30:00.000Z']);
  assert.deepEqual(at('30 2 * * *', 'America/New_York', '2026-03-08'), ['2026-03-08T07:00:00.000Z']);
  assert.deepEqual(at('30 1 * * *', 'America/New_York', '2026-11-01'), ['2026-11-01T05:30:00.000Z']);
  assert.deepEqual(
    at('30 1,2 * * *', 'Europe/Berlin', '2026-10-25').length,
    1,
    '1:30 was the day before in UTC',
  );
});

test('an interval goes by the time that really passes', () => {
  for (const timeZone of ZONES)
    for (const day of CHANGES) {
      const from = Date.parse(`${day}T00:00:00Z`) - DAY_MS;
      const due = dueBetween({ cron: '*/10 * * * *', timeZone }, from, from + 3 * DAY_MS);
      assert.ok(due.every((ms, index) => index === 0 || ms - (due[index - 1] ?? 0) === 10 * 60_000));
    }
});
