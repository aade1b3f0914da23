/** What becomes of schedules that are due: clocks that change and jump, missed runs, jitter. The pure part alone. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { imageName, specOf, whyNotSchedule } from '../../src/guests/schedules.ts';
import { beginsAt, decide, LATE_MS, REWIND_MS, type DueSchedule } from '../../src/policy/due.ts';
import { timetable } from '../../src/timetable.ts';
import {
  anyChange,
  anyCron,
  anyInstant,
  anyZone,
  DAY_MS,
  dueBetween,
  HOUR_MS,
  YEAR_MS,
} from '../support/calendar.ts';

const schedule = (fields: Partial<DueSchedule['spec']> & { cron: string }): DueSchedule => ({
  guest: 'uuid',
  name: 'nightly',
  spec: { ...specOf({ name: 'nightly', cron: fields.cron }), ...fields },
  decidedUntilMs: YEAR_MS,
});

/** What a scheduler does that looks at given times, with the catalog's word that a due time is decided once. */
function walk(from: DueSchedule, looksMs: readonly number[]) {
  const decided = new Map<number, { what: 'run' | 'miss'; atMs: number }>();
  let { decidedUntilMs } = from;
  let again = 0;
  for (const nowMs of looksMs) {
    for (let decisions = 0; ; decisions += 1) {
      assert.ok(decisions < 4, 'a look comes to its end: no storm');
      const decision = decide({ ...from, decidedUntilMs }, nowMs);
      if (decision.what === 'wait') {
        assert.ok(decision.untilMs === null || decision.untilMs > nowMs);
        break;
      }
      if (decision.what === 'rewind') {
        decidedUntilMs = nowMs;
        continue;
      }
      assert.ok(decision.dueMs <= nowMs);
      if (decided.has(decision.dueMs)) again += 1;
      else decided.set(decision.dueMs, { what: decision.what, atMs: nowMs });
      decidedUntilMs = decision.dueMs;
    }
  }
  return { decided, again };
}

test('who looks often enough runs each due time once, within its jitter', () => {
  fc.assert(
    fc.property(
      anyCron,
      anyZone,
      anyChange,
      fc.integer({ min: 0, max: 500 }),
      (cron, timeZone, day, jitterSeconds) => {
        const from = Date.parse(`${day}T00:00:00Z`) - DAY_MS;
        const asked = { ...schedule({ cron, timeZone, jitterSeconds }), decidedUntilMs: from };
        const looks = Array.from({ length: (2.5 * DAY_MS) / 50_000 }, (_, index) => from + index * 50_000);
        const to = (looks.at(-1) ?? 0) - jitterSeconds * 1000;
        const { decided, again } = walk(asked, looks);
        assert.equal(again, 0);
        const due = dueBetween(asked.spec, from, to);
        assert.deepEqual(
          [...decided.keys()].filter((ms) => ms < to),
          due,
        );
        for (const [dueMs, { what, atMs }] of decided) {
          assert.equal(what, 'run');
          const begins = beginsAt(asked, dueMs);
          assert.ok(atMs >= begins && atMs - begins < 50_000);
        }
      },
    ),
    { numRuns: 3 },
  );
});

const anyJump = fc.oneof(
  fc.integer({ min: 1000, max: 60_000 }),
  fc.integer({ min: HOUR_MS, max: 40 * DAY_MS }),
  fc.integer({ min: -30 * DAY_MS, max: -1 }),
);

test('whatever the clock does, no due time is run twice, and a look runs one at most', () => {
  fc.assert(
    fc.property(
      anyCron,
      anyZone,
      anyInstant,
      fc.array(anyJump, { maxLength: 60 }),
      (cron, timeZone, from, jumps) => {
        let nowMs = from;
        const looks = jumps.map((jump) => (nowMs += jump));
        const asked = { ...schedule({ cron, timeZone }), decidedUntilMs: from };
        const { decided } = walk(asked, looks);
        const atOnce = Map.groupBy(decided.values(), ({ atMs }) => atMs);
        for (const [, runs] of atOnce) assert.ok(runs.length <= 1 + looks.length - new Set(looks).size);
        for (const dueMs of decided.keys()) assert.equal(timetable(asked.spec).last(dueMs), dueMs);
      },
    ),
  );
});

test('a clock that is set back by less is waited for; by more it begins anew', () => {
  const asked = { ...schedule({ cron: '*/10 * * * *' }), decidedUntilMs: YEAR_MS };
  assert.equal(decide(asked, YEAR_MS - REWIND_MS).what, 'wait');
  assert.equal(decide(asked, YEAR_MS - REWIND_MS - 1).what, 'rewind');
});

test('what was missed is made up for by one run, or by none', () => {
  fc.assert(
    fc.property(
      anyCron,
      anyZone,
      anyInstant,
      fc.integer({ min: LATE_MS, max: 4 * DAY_MS }),
      (cron, timeZone, from, awayMs) => {
        for (const missed of ['catch-up', 'skip'] as const) {
          const asked = { ...schedule({ cron, timeZone, missed }), decidedUntilMs: from };
          const back = from + awayMs;
          const due = dueBetween(asked.spec, from, back + 1);
          const { decided } = walk(asked, [back]);
          assert.equal(decided.size, Math.min(1, due.length));
          const [[dueMs, { what }] = [0, { what: '' }]] = decided;
          if (due.length === 0) continue;
          assert.equal(dueMs, due.at(-1), 'the newest that was due');
          assert.equal(what, missed === 'skip' && back - dueMs > LATE_MS ? 'miss' : 'run');
        }
      },
    ),
    { numRuns: 60 },
  );
});

test('jitter is bounded, the same each time, and spreads guests', () => {
  fc.assert(
    fc.property(fc.uuid(), anyInstant, fc.integer({ min: 0, max: 86_400 }), (guest, dueMs, jitterSeconds) => {
      const asked = { ...schedule({ cron: '@daily', jitterSeconds }), guest };
      const begins = beginsAt(asked, dueMs);
      assert.ok(begins >= dueMs && begins <= dueMs + jitterSeconds * 1000);
      assert.equal(beginsAt(asked, dueMs), begins);
    }),
  );
  const asked = schedule({ cron: '@daily', jitterSeconds: 600 });
  const minutes = Map.groupBy(
    Array.from({ length: 200 }, (_, index) => beginsAt({ ...asked, guest: `guest${index}` }, YEAR_MS)),
    (ms) => Math.floor((ms - YEAR_MS) / 60_000),
  );
  assert.equal(minutes.size, 10);
  for (const [, begins] of minutes)
    assert.ok(begins.length < 45, '20 of 200 in each of ten minutes, more or less');
});

test('an image is called by the time at which it was due, there', () => {
  const { spec } = schedule({ cron: '0 3 * * *', timeZone: 'Europe/Berlin' });
  assert.equal(imageName('nightly', spec, Date.parse('2026-11-24T02:00:00Z')), 'nightly-2026-11-24T0300');
  const seconds = { ...spec, cron: '*/5 * * * * *' };
  assert.equal(imageName('often', seconds, Date.parse('2026-11-24T02:00:05Z')), 'often-2026-11-24T030005');
  const own = { ...spec, image: 'web-%d.%m.%Y' };
  assert.equal(imageName('nightly', own, Date.parse('2026-11-24T02:00:00Z')), 'web-24.11.2026');
});

test('what can not be is refused with what is wrong', () => {
  const why = (fields: Partial<DueSchedule['spec']>) =>
    whyNotSchedule('nightly', { ...schedule({ cron: '0 3 * * *' }).spec, ...fields }, YEAR_MS) ?? '';
  assert.equal(why({}), '');
  assert.match(why({ cron: '61 * * * *' }), /minute: 61/);
  assert.match(why({ cron: '0 3 * *' }), /can't be read/);
  assert.match(why({ cron: '0 0 30 2 *' }), /never due/);
  assert.match(why({ timeZone: 'Europe/Atlantis' }), /time zone Europe\/Atlantis can't be read/);
  assert.match(why({ cron: '*/10 * * * *', jitterSeconds: 600 }), /not less than the 600 s between two runs/);
  assert.match(why({ image: 'nightly' }), /two runs would both make an image "nightly"/);
  assert.match(why({ image: '../%Y-%m-%d' }), /can't be an image's name/);
});
