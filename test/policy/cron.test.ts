import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SYSTEM_CLOCK } from '../../src/policy/clock.ts';
import { nextTime, waitUntil } from '../../src/policy/cron.ts';

const at = (text: string) => Date.parse(text);
const next = (expression: string, timeZone: string, after: string) =>
  new Date(nextTime({ expression, timeZone }, at(after)) ?? 0).toISOString();

test('a time is due after the moment that is asked from, in its own zone', () => {
  assert.equal(next('0 3 * * 0', 'UTC', '2026-11-24T20:00:00Z'), '2026-11-29T03:00:00.000Z');
  assert.equal(next('0 3 * * 0', 'UTC', '2026-11-29T03:00:00Z'), '2026-12-06T03:00:00.000Z');
  assert.equal(next('30 4 * * *', 'Europe/Berlin', '2026-07-01T00:00:00Z'), '2026-07-01T02:30:00.000Z');
  assert.equal(next('30 4 * * *', 'Europe/Berlin', '2026-12-01T00:00:00Z'), '2026-12-01T03:30:00.000Z');
});

test('what is no time is refused with words; one that never comes is none', () => {
  assert.throws(() => nextTime({ expression: 'sometimes' }, 0), {
    code: 'invalid-request',
    message: /sometimes/,
  });
  assert.throws(() => nextTime({ expression: '0 3 * * *', timeZone: 'Mars/Base' }, 0), {
    code: 'invalid-request',
  });
  assert.equal(
    nextTime({ expression: '0 0 31 2 *', timeZone: 'UTC' }, at('2026-01-01T00:00:00Z')),
    undefined,
  );
});

test('waiting ends at once for a time that is past, and with the signal', async () => {
  const never = new AbortController();
  await waitUntil(SYSTEM_CLOCK, 0, never.signal);
  const waiting = waitUntil(SYSTEM_CLOCK, Number.MAX_SAFE_INTEGER, never.signal);
  never.abort();
  await waiting;
});
