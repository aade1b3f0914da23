/** When a precopy stops the guest: the rule alone, over guests of any speed. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  allowanceAfter,
  FIRST_ALLOWANCE_MS,
  lengthMs,
  type Pass,
} from '../../src/qemu/capture/convergence.ts';

const GIB = 1024 ** 3;

interface Followed {
  readonly passes: number;
  readonly writtenBytes: number;
  /** `undefined` when the guest was given up */
  readonly lastPassMs: number | undefined;
}

/** A guest whose memory is written at one speed and dirtied at another. */
function follow(memoryBytes: number, writeSpeed: number, dirtyRate: number, mostMs: number): Followed {
  const passes: Pass[] = [];
  let remainingBytes = memoryBytes;
  for (let writtenBytes = 0; ; writtenBytes += remainingBytes) {
    if (passes.length > 0) remainingBytes = Math.min(memoryBytes, (dirtyRate * remainingBytes) / writeSpeed);
    passes.push({ remainingBytes, bytesPerSecond: writeSpeed });
    const allowanceMs = allowanceAfter(passes, mostMs);
    const passMs = lengthMs({ remainingBytes, bytesPerSecond: writeSpeed });
    if (allowanceMs === undefined) return { passes: passes.length, writtenBytes, lastPassMs: undefined };
    assert.ok(allowanceMs <= mostMs);
    if (passes.length > 1 && passMs <= allowanceMs)
      return { passes: passes.length, writtenBytes: writtenBytes + remainingBytes, lastPassMs: passMs };
  }
}

const guests = fc.record({
  memoryBytes: fc.integer({ min: 16 * 1024 ** 2, max: 256 * GIB }),
  writeSpeed: fc.integer({ min: 20e6, max: 5e9 }),
  dirtyRate: fc.integer({ min: 0, max: 10e9 }),
  mostMs: fc.oneof(fc.constant(Infinity), fc.integer({ min: 1, max: 10_000 })),
});

test('every guest is stopped, or given up, after a bounded number of passes; never with more left than wanted', () => {
  fc.assert(
    fc.property(guests, ({ memoryBytes, writeSpeed, dirtyRate, mostMs }) => {
      const { passes, lastPassMs } = follow(memoryBytes, writeSpeed, dirtyRate, mostMs);
      assert.ok(passes <= 40, `${passes} passes`);
      if (mostMs === Infinity) assert.notEqual(lastPassMs, undefined);
      assert.ok((lastPassMs ?? 0) <= mostMs);
    }),
  );
});

test('a guest that dirties memory at half the speed of writing is stopped with next to nothing left', () => {
  fc.assert(
    fc.property(guests, ({ memoryBytes, writeSpeed, dirtyRate }) => {
      const followed = follow(memoryBytes, writeSpeed, Math.min(dirtyRate, writeSpeed / 2), Infinity);
      const allowedMs = FIRST_ALLOWANCE_MS * 2 ** Math.max(0, followed.passes - 4);
      assert.ok((followed.lastPassMs ?? Infinity) <= allowedMs);
      assert.ok(followed.writtenBytes <= 2.1 * memoryBytes);
    }),
  );
});

test('a guest that writes as fast as we do is given up after four passes when the pause has a limit', () => {
  assert.deepEqual(follow(GIB, 1e9, 1e9, 50), { passes: 4, writtenBytes: 3 * GIB, lastPassMs: undefined });
});
