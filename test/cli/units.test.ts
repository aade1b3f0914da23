import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { count, formatAge, formatBytes, formatDuration } from '../../src/cli/units.ts';

function pins<T>(name: string, format: (value: T) => string, cases: readonly (readonly [T, string])[]): void {
  for (const [value, text] of cases)
    test(`${name}: ${String(value)} is "${text}"`, () => assert.equal(format(value), text));
}

pins('bytes', formatBytes, [
  [0, '0 B'],
  [1023, '1023 B'],
  [1024, '1.0 KiB'],
  [1024 ** 2 - 1, '1.0 MiB'],
  [1024 ** 3, '1.0 GiB'],
  [327_155_712, '312 MiB'],
  [1.5 * 1024 ** 4, '1.5 TiB'],
]);

pins('durations', formatDuration, [
  [0, '0 ms'],
  [0.42, '0.4 ms'],
  [13, '13 ms'],
  [999.7, '1.0 s'],
  [1400, '1.4 s'],
  [59_960, '1 min 00 s'],
  [125_000, '2 min 05 s'],
  [3_599_900, '1 h 00 min'],
  [11_220_000, '3 h 07 min'],
]);

const NOW = Date.parse('2026-06-15T12:00:00Z');
pins('ages', (date: string) => formatAge(date, NOW), [
  ['2026-06-15T12:00:03Z', 'now'],
  ['2026-06-15T11:59:48Z', '12 s ago'],
  ['2026-06-15T11:55:00Z', '5 min ago'],
  ['2026-06-14T12:00:00Z', '24 h ago'],
  ['2026-06-01T12:00:00Z', '14 d ago'],
  ['2025-06-15T12:00:00Z', '2025-06-15'],
  ['nonsense', 'nonsense'],
]);

test('counts have their plural', () => {
  assert.deepEqual([count(1, 'disk'), count(0, 'disk'), count(2, 'disk')], ['1 disk', '0 disks', '2 disks']);
});

test('sizes always take few columns', () => {
  fc.assert(
    fc.property(fc.nat(Number.MAX_SAFE_INTEGER), (bytes) => formatBytes(bytes).length <= '1023 KiB'.length),
  );
});
