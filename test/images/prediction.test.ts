/** The prediction of a pause: the model alone. What it is worth is measured in bench/. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { better, predict, type GuestLoad } from '../../src/images/prediction.ts';

const GIB = 1024 ** 3;
const IDLE: GuestLoad = {
  memoryBytes: 4 * GIB,
  residentBytes: GIB,
  hostPageBytes: 4096,
  diskCount: 2,
  dirtyBytesPerSecond: 0,
};
const loads = fc.record({
  memoryBytes: fc.integer({ min: 16 * 1024 ** 2, max: 512 * GIB }),
  residentBytes: fc.integer({ min: 1, max: 16 * 1024 ** 2 }),
  hostPageBytes: fc.constantFrom(4096, 2 * 1024 ** 2),
  diskCount: fc.integer({ min: 0, max: 20 }),
  dirtyBytesPerSecond: fc.integer({ min: 0, max: 20e9 }),
});
const past = (pauseMs: number, dirtyBytesPerSecond = 0) => ({
  dirtyBytesPerSecond,
  modelMs: 10,
  pauseMs,
  bytesPerSecond: 1e9,
});

test('any guest gets a prediction that is a number, and no pause is for nothing', () => {
  fc.assert(
    fc.property(loads, fc.array(fc.double({ min: 0.1, max: 1e6, noNaN: true })), (load, pauses) => {
      for (const method of ['precopy', 'background'] as const) {
        const prediction = predict(
          method,
          load,
          pauses.map((pauseMs) => past(pauseMs, load.dirtyBytesPerSecond)),
        );
        assert.ok(prediction.pauseMs > 0 && Number.isFinite(prediction.pauseMs));
        assert.ok(prediction.fixedMs <= prediction.pauseMs);
        assert.ok(prediction.writtenBytes >= load.residentBytes);
      }
    }),
  );
});

test('the pause of precopy does not grow with memory, that of background does, by pages of the host', () => {
  const large = { ...IDLE, memoryBytes: 64 * GIB, residentBytes: 64 * GIB };
  assert.equal(predict('precopy', large, []).pauseMs, predict('precopy', IDLE, []).pauseMs);
  assert.ok(predict('background', large, []).pauseMs > 10 * predict('background', IDLE, []).pauseMs);
  const huge = { ...large, hostPageBytes: 2 * 1024 ** 2 };
  assert.ok(predict('background', huge, []).pauseMs < 2 * predict('background', IDLE, []).pauseMs);
});

test('the slower the host was before, the longer the pause that is expected; one stray save changes nothing', () => {
  const expected = predict('precopy', IDLE, [past(20), past(21), past(900), past(19), past(20)]);
  const { pauseMs } = predict('precopy', IDLE, []);
  assert.ok(expected.pauseMs > 1.7 * pauseMs && expected.pauseMs < 2 * pauseMs);
  assert.equal(expected.basedOn, 5);
});

test('a guest that dirties its memory faster than it can be written is captured in the background', () => {
  const methods = (dirtyBytesPerSecond: number) =>
    (['precopy', 'background'] as const).map((method) =>
      predict(method, { ...IDLE, dirtyBytesPerSecond }, [past(10)]),
    );
  assert.equal(better(methods(0))?.method, 'precopy');
  assert.equal(better(methods(400e6))?.method, 'precopy');
  assert.equal(better(methods(2e9))?.method, 'background');
  // On a host that is busy just now all pauses are longer: no reason to choose otherwise.
  const [precopy, background] = [
    predict('precopy', IDLE, [past(250)]),
    predict('background', IDLE, [past(1)]),
  ];
  assert.equal(better([precopy, background]), precopy);
  assert.equal(better([]), undefined);
});

test('a busy guest is expected to be paused for longer; saves at another load say nothing when there are some at this one', () => {
  const at = (dirtyBytesPerSecond: number) =>
    predict('precopy', { ...IDLE, dirtyBytesPerSecond }, [past(10), past(40, 400e6)]);
  assert.ok(at(50e6).modelMs > at(0).modelMs && at(400e6).modelMs > at(50e6).modelMs);
  assert.equal(at(0).pauseMs, at(0).modelMs);
  assert.equal(at(300e6).pauseMs, 2 * at(300e6).modelMs, 'one save is believed by half');
  assert.deepEqual([at(0).basedOn, at(300e6).basedOn, at(100e6).basedOn], [1, 1, 2]);
});
