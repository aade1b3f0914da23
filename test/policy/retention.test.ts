/** Which images stay: the rules alone, against a second reading of what restic documents, and what no rule may ever remove. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Retention } from '../../src/api/schedules.ts';
import { NO_RULES } from '../../src/guests/retention.ts';
import type { WeighedImage } from '../../src/images/usage.ts';
import { judge } from '../../src/policy/retention.ts';

const GIB = 1024 ** 3;
const image = (createdAt: string, fields: Partial<WeighedImage> = {}): WeighedImage => ({
  id: createdAt,
  name: createdAt,
  createdAt,
  schedule: 'nightly',
  isDefault: false,
  isProtected: false,
  isReady: true,
  verifiedAt: null,
  ownBytes: GIB,
  ...fields,
});
const rules = (fields: Partial<Retention>): Retention => ({ ...NO_RULES, timeZone: 'UTC', ...fields });
const sumOf = (images: readonly WeighedImage[]) => images.reduce((sum, { ownBytes }) => sum + ownBytes, 0);
const kept = (images: readonly WeighedImage[], given: Partial<Retention>) =>
  judge(images, rules(given), sumOf(images))
    .verdicts.filter(({ keep }) => keep)
    .map(({ image: { name } }) => name);

const anyImages = fc
  .array(
    fc.record({
      at: fc.integer({ min: 0, max: 900 * 86_400 }),
      schedule: fc.constantFrom('nightly', 'hourly', 'hourly', null),
      isDefault: fc.constantFrom(false, false, false, false, true),
      isProtected: fc.constantFrom(false, false, false, true),
      isReady: fc.constantFrom(true, true, true, true, false),
      isVerified: fc.constantFrom(false, false, false, true),
      ownBytes: fc.integer({ min: 0, max: 10 * GIB }),
    }),
    { maxLength: 40 },
  )
  .map((all) =>
    all.map(({ at, isVerified, ...fields }, index) =>
      image(new Date(Date.parse('2024-01-01T00:00:00Z') + at * 1000).toISOString(), {
        id: String(index),
        name: `image${index}`,
        verifiedAt: isVerified ? '2026-11-24T00:00:00Z' : null,
        ...fields,
      }),
    ),
  );
const few = fc.constantFrom(0, 0, 1, 2, 5, 100);
const anyRules = fc.record({
  keepLast: few,
  keepHourly: few,
  keepDaily: few,
  keepWeekly: few,
  keepMonthly: few,
  keepYearly: few,
  keepWithinSeconds: fc.constantFrom(0, 0, 3600, 86_400 * 30),
  all: fc.boolean(),
  quotaBytes: fc.constantFrom(null, 1, 20 * GIB, 1000 * GIB),
  quotaImages: fc.constantFrom(null, 1, 10, 100),
  timeZone: fc.constantFrom(null, 'UTC', 'Europe/Berlin', 'America/New_York'),
});

test('what must never be removed never is, and every image has a verdict with a reason', () => {
  fc.assert(
    fc.property(anyImages, anyRules, (images, given) => {
      const { verdicts, usedBytes, excess } = judge(images, given, sumOf(images));
      assert.equal(verdicts.length, images.length);
      const ready = verdicts.map((verdict) => verdict.image).filter(({ isReady }) => isReady);
      const lastVerified = ready.find(({ verifiedAt }) => verifiedAt !== null);
      for (const { image: one, keep, reasons } of verdicts) {
        assert.notEqual(reasons.length, 0);
        if (keep) continue;
        assert.ok(!one.isDefault && !one.isProtected && one.isReady);
        assert.ok(given.all || one.schedule !== null);
        assert.notEqual(one, lastVerified ?? ready[0], 'the last that verified, or the newest, stays');
      }
      const left = verdicts.filter(({ keep }) => keep).map((verdict) => verdict.image);
      assert.equal(usedBytes, sumOf(left));
      if (excess === null) {
        assert.ok(usedBytes <= (given.quotaBytes ?? Infinity));
        assert.ok(left.length <= (given.quotaImages ?? Infinity));
      }
    }),
    { numRuns: 2000 },
  );
});

test('to judge again what was kept changes nothing', () => {
  fc.assert(
    fc.property(anyImages, anyRules, (images, given) => {
      // While a rule has some left the oldest image is kept for its age alone: that one may become another's.
      const first = judge(images, given, sumOf(images)).verdicts.filter(({ keep }) => keep);
      const left = first.map((verdict) => verdict.image);
      const second = judge(left, given, sumOf(left)).verdicts.filter(({ keep }) => keep);
      assert.deepEqual(
        second.map((verdict) => verdict.image),
        left,
      );
    }),
    { numRuns: 1000 },
  );
});

/** The periods of a rule, written once more and differently. */
const PERIOD_OF = {
  keepHourly: (at: string) => at.slice(0, 13),
  keepDaily: (at: string) => at.slice(0, 10),
  keepMonthly: (at: string) => at.slice(0, 7),
  keepYearly: (at: string) => at.slice(0, 4),
} as const;

test('a rule keeps the newest of each of its newest periods that have one, and the oldest of all while it has some left', () => {
  const anyRule = fc.constantFrom('keepHourly', 'keepDaily', 'keepMonthly', 'keepYearly');
  fc.assert(
    fc.property(
      fc.uniqueArray(fc.integer({ min: 0, max: 900 * 86_400 }), { minLength: 1, maxLength: 40 }),
      anyRule,
      fc.integer({ min: 1, max: 10 }),
      (times, rule, number) => {
        const images = times
          .map((at) => image(new Date(Date.parse('2024-01-01T00:00:00Z') + at * 1000).toISOString()))
          .toSorted((a, b) => b.name.localeCompare(a.name));
        const periods = Map.groupBy(images, ({ name }) => PERIOD_OF[rule](name));
        const expected = new Set([...periods.values()].slice(0, number).map(([newest]) => newest?.name));
        if (periods.size < number) expected.add(images.at(-1)?.name);
        if (images[0] !== undefined) expected.add(images[0].name); // none was verified
        assert.deepEqual(new Set(kept(images, { [rule]: number })), expected);
      },
    ),
    { numRuns: 1000 },
  );
});

test('the example of restic’s manual: Sundays only, with daily and weekly rules', () => {
  const sundays = ['01', '08', '15', '22', '29'].map((day) => image(`2019-09-${day}T11:00:00.000Z`));
  const days = (given: Partial<Retention>) => kept(sundays, given).map((name) => name.slice(8, 10));
  assert.deepEqual(days({ keepDaily: 4 }), ['29', '22', '15', '08'], 'days without an image count nothing');
  assert.deepEqual(days({ keepLast: 1 }), ['29']);
  assert.deepEqual(days({ keepMonthly: 12 }), ['29', '01'], 'and the oldest, as there are months left');
  assert.deepEqual(days({ keepWithinSeconds: 8 * 86_400 }), ['29', '22']);
  assert.deepEqual(days({}), ['29', '22', '15', '08', '01'], 'without a rule all stay');
});

test('hours, days and weeks are those of the time zone', () => {
  const night = ['2026-11-23T22:30:00.000Z', '2026-11-23T23:30:00.000Z'].map((at) => image(at));
  assert.equal(kept(night, { keepDaily: 1 }).length, 1);
  assert.equal(kept(night, { keepDaily: 2, timeZone: 'Europe/Berlin' }).length, 2);
  const newYear = ['2026-12-31T12:00:00.000Z', '2027-01-01T12:00:00.000Z', '2027-01-04T12:00:00.000Z'];
  const why = judge(
    newYear.map((at) => image(at)),
    rules({ keepWeekly: 2 }),
    0,
  ).verdicts;
  assert.deepEqual(
    why.map(({ keep, reasons }) => [keep, reasons.at(-1)]),
    [
      [true, 'weekly'],
      [true, 'weekly'],
      [false, 'no rule keeps it'],
    ],
    'the last days of 2026 and the first of 2027 are one week',
  );
});

test('a quota takes the oldest that no rule keeps, and says what is too much', () => {
  const days = ['01', '02', '03', '04'].map((day) => image(`2026-11-${day}T03:00:00.000Z`));
  assert.deepEqual(
    kept(days, { quotaImages: 2 }).map((name) => name.slice(8, 10)),
    ['04', '03'],
  );
  assert.deepEqual(
    kept(days, { quotaBytes: 3 * GIB }).map((name) => name.slice(8, 10)),
    ['04', '03', '02'],
  );
  const newcomer = { images: 1, bytes: 2 * GIB };
  const ring = judge(days, rules({ quotaBytes: 4 * GIB }), 4 * GIB, newcomer);
  assert.deepEqual([ring.usedBytes, ring.excess], [2 * GIB, null]);
  const full = judge(days, rules({ quotaBytes: 4 * GIB, keepLast: 4 }), 4 * GIB, newcomer);
  assert.deepEqual([full.usedBytes, full.excess], [4 * GIB, { bytes: 2 * GIB, images: 0 }]);
  assert.ok(
    full.verdicts.every(({ keep }) => keep),
    'a rule is stronger than a quota',
  );
});
