import { test } from 'node:test';
import { SYSTEM_CLOCK, waitUntil } from '../../src/policy/clock.ts';

test('waiting ends at once for a time that is past, and with the signal', async () => {
  const never = new AbortController();
  await waitUntil(SYSTEM_CLOCK, 0, never.signal);
  const waiting = waitUntil(SYSTEM_CLOCK, Number.MAX_SAFE_INTEGER, never.signal);
  never.abort();
  await waiting;
});
