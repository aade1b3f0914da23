/** Which guests are saved in the time there is: the planner alone. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  FIXED_MS,
  isHopeless,
  planEnds,
  simulate,
  type Candidate,
  type Means,
} from '../../src/policy/budget.ts';

const MIB = 1024 ** 2;
const candidate = (index: number, fields: Partial<Candidate> = {}): Candidate => ({
  guest: `uuid${index}`,
  name: `guest${index}`,
  wanted: 'save',
  order: 100,
  bytes: 512 * MIB,
  timeLimitMs: 300_000,
  obstacle: null,
  ...fields,
});
const means = (fields: Partial<Means> = {}): Means => ({
  bytesPerSecond: 512 * MIB,
  parallel: 2,
  timeMs: Infinity,
  freeBytes: Infinity,
  underWay: [],
  ...fields,
});

const anyBytes = fc.integer({ min: 0, max: 64 * 1024 }).map((mib) => mib * MIB);
const anyCandidates = fc
  .array(
    fc.record({
      bytes: anyBytes,
      order: fc.integer({ min: 0, max: 3 }),
      wanted: fc.constantFrom('save', 'save', 'save', 'shutdown', 'stop'),
      obstacle: fc.constantFrom(null, null, null, 'a disk'),
      timeLimitMs: fc.integer({ min: 1, max: 600_000 }),
    }),
    { maxLength: 9 },
  )
  .map((all) => all.map((fields, index) => candidate(index, fields)));
const anyMeans = fc.record({
  bytesPerSecond: fc.integer({ min: 1e6, max: 2e9 }),
  parallel: fc.integer({ min: 1, max: 5 }),
  timeMs: fc.oneof(fc.constant(Infinity), fc.integer({ min: -10_000, max: 300_000 })),
  freeBytes: fc.oneof(fc.constant(Infinity), anyBytes),
  underWay: fc.array(fc.record({ remainingBytes: anyBytes }), { maxLength: 3 }),
});
const savedBy = (candidates: readonly Candidate[], there: Means) =>
  planEnds(candidates, there).filter(({ action }) => action === 'save');

test('every guest has one end, a reason for it, and never one above what its policy wants', () => {
  fc.assert(
    fc.property(anyCandidates, anyMeans, (candidates, there) => {
      const plan = planEnds(candidates, there);
      assert.deepEqual(
        plan.map((end) => end.candidate.name).toSorted(),
        candidates.map(({ name }) => name).toSorted(),
      );
      for (const { candidate: guest, action, why } of plan) {
        assert.notEqual(why, '');
        if (guest.wanted !== 'save') assert.equal(action, guest.wanted);
        if (guest.obstacle !== null) assert.notEqual(action, 'save');
      }
    }),
  );
});

test('what is planned to be saved ends in time, and fits', () => {
  fc.assert(
    fc.property(anyCandidates, anyMeans, (candidates, there) => {
      const saved = savedBy(candidates, there);
      for (const { endMs, candidate: guest } of saved) {
        assert.ok(endMs !== null && endMs <= there.timeMs);
        assert.ok(
          endMs + 1e-3 >= FIXED_MS + (guest.bytes / there.bytesPerSecond) * 1000,
          'faster than alone',
        );
      }
      const bytes = saved.reduce((sum, end) => sum + end.candidate.bytes, 0);
      assert.ok(bytes <= there.freeBytes);
      const last = Math.max(0, ...saved.map(({ endMs }) => endMs ?? 0));
      if (saved.length > 0)
        assert.ok((bytes / there.bytesPerSecond) * 1000 <= last + 1e-3, 'faster than the disk');
    }),
  );
});

test('no choice of guests that could be saved one after the other in the time is larger', () => {
  fc.assert(
    fc.property(anyCandidates, anyMeans, (candidates, there) => {
      const alone = { ...there, underWay: [], freeBytes: Infinity };
      const lengthMs = ({ bytes }: Candidate) => FIXED_MS + (bytes / there.bytesPerSecond) * 1000;
      const able = candidates.filter(
        (guest) => guest.wanted === 'save' && guest.obstacle === null && lengthMs(guest) <= guest.timeLimitMs,
      );
      const saved = savedBy(candidates, alone).length;
      for (let subset = 0; subset < 2 ** able.length; subset += 1) {
        const chosen = able.filter((_, index) => (subset & (2 ** index)) !== 0);
        const serialMs = chosen.reduce((sum, guest) => sum + lengthMs(guest), 0);
        if (serialMs < there.timeMs - 1e-3) assert.ok(saved >= chosen.length);
      }
    }),
    { numRuns: 60 },
  );
});

test('more time, more speed and more space never save fewer', () => {
  fc.assert(
    fc.property(
      anyCandidates,
      anyMeans,
      fc.double({ min: 1, max: 10, noNaN: true }),
      (candidates, there, more) => {
        const withLimits = candidates.map((guest) => ({ ...guest, timeLimitMs: Infinity }));
        const before = savedBy(withLimits, there).length;
        const richer = [
          { ...there, timeMs: there.timeMs < 0 ? there.timeMs / more : there.timeMs * more },
          { ...there, freeBytes: there.freeBytes * more },
          { ...there, underWay: [] },
        ];
        for (const better of richer) assert.ok(savedBy(withLimits, better).length >= before);
      },
    ),
  );
});

test('the disk is never idle, and never faster than it is', () => {
  fc.assert(
    fc.property(
      fc.array(fc.record({ bytes: anyBytes }), { minLength: 1, maxLength: 9 }),
      anyMeans,
      (saves, there) => {
        const lastMs = Math.max(...simulate(saves, { ...there, underWay: [] }));
        const writingMs = (saves.reduce((sum, { bytes }) => sum + bytes, 0) / there.bytesPerSecond) * 1000;
        assert.ok(lastMs + 1e-3 >= writingMs);
        assert.ok(lastMs <= writingMs + FIXED_MS * saves.length + 1e-3);
      },
    ),
  );
});

test('the smallest are chosen, and the highest order goes first', () => {
  const guests = [
    candidate(1, { bytes: 4096 * MIB, order: 300 }),
    candidate(2, { bytes: 1024 * MIB, order: 10 }),
    candidate(3, { bytes: 2048 * MIB, order: 20 }),
  ];
  const plan = planEnds(guests, means({ timeMs: 8_000 }));
  assert.deepEqual(
    plan.map(({ candidate: { name }, action }) => [name, action]),
    [
      ['guest3', 'save'],
      ['guest2', 'save'],
      ['guest1', 'shutdown'],
    ],
  );
  assert.match(plan[2]?.why ?? '', /with it the saves would take 14\.\d s, and there are 8\.0 s for them/);
});

test('a guest that takes longer than its own limit is told so, and the others are not hurt by it', () => {
  const plan = planEnds([candidate(1, { timeLimitMs: 1000 }), candidate(2)], means());
  assert.deepEqual(
    plan.map(({ action }) => action),
    ['save', 'shutdown'],
  );
  assert.match(plan[1]?.why ?? '', /its time limit is 1\.0 s/);
});

test('a save is given up only when there is just time for a shutdown, and it will not end', () => {
  assert.equal(isHopeless({ elapsedMs: 10_000, fraction: 0.1 }, 31_000, 30_000), false);
  assert.equal(isHopeless({ elapsedMs: 10_000, fraction: 0.1 }, 30_000, 30_000), true);
  assert.equal(isHopeless({ elapsedMs: 10_000, fraction: 0.5 }, 30_000, 30_000), false);
  assert.equal(isHopeless({ elapsedMs: 10_000, fraction: 0 }, 30_000, 30_000), true);
  assert.equal(isHopeless({ elapsedMs: 10_000, fraction: 1 }, 100, 30_000), false);
});
