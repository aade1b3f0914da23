import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decideRun, insertSchedule, updateSchedule, waitingRuns } from '../../src/catalog/schedules.ts';
import { insertGuestNamed, ownCatalog } from '../support/own-catalog.ts';

test('a schedule that is paused while it is looked at does not run', async () => {
  await using own = await ownCatalog();
  const { catalog } = own;
  const [guest, name, at] = ['a', 'often', '2026-01-01T00:00:00.000Z'];
  await insertGuestNamed(catalog, guest);
  await insertSchedule(catalog, {
    ...{ guest, name, spec: '{}', paused: 0, createdAt: at, decidedUntil: at },
  });
  const decided = (minute: number) => {
    const key = { guest, schedule: name, dueAt: `2026-01-01T00:0${minute}:00.000Z` };
    return decideRun(catalog, key, { state: 'waiting', endedAt: null, message: '' });
  };
  assert.equal(await decided(1), true);
  assert.equal(await decided(1), false, 'once');
  await updateSchedule(catalog, { guest, name }, { paused: 1 });
  assert.equal(await decided(2), false);
  assert.deepEqual(
    (await waitingRuns(catalog)).map(({ dueAt }) => dueAt),
    ['2026-01-01T00:01:00.000Z'],
  );
});
