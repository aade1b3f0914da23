import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { openCatalog } from '../../src/catalog/database.ts';
import { insertGuest } from '../../src/catalog/guests.ts';
import { decideRun, insertSchedule, updateSchedule, waitingRuns } from '../../src/catalog/schedules.ts';

test('a schedule that is paused while it is looked at does not run', async () => {
  const home = await mkdtemp(join(tmpdir(), 'stasis-schedules-'));
  try {
    const catalog = await openCatalog(join(home, 'catalog.sqlite'));
    const [guest, name, at] = ['a', 'often', '2026-01-01T00:00:00.000Z'];
    await insertGuest(catalog, {
      ...{ uuid: guest, name: guest, definition: '{}', instance: null, crashed: 0 },
      ...{ stateReason: null, currentImage: null, createdAt: at },
    });
    await insertSchedule(catalog, {
      ...{ guest, name, spec: '{}', paused: 0, createdAt: at, decidedUntil: at },
    });
    const decided = (minute: number) => {
      const dueAt = `2026-01-01T00:0${minute}:00.000Z`;
      return decideRun(
        catalog,
        { guest, schedule: name, dueAt },
        { state: 'waiting', endedAt: null, message: '' },
      );
    };
    assert.equal(await decided(1), true);
    assert.equal(await decided(1), false, 'once');
    await updateSchedule(catalog, { guest, name }, { paused: 1 });
    assert.equal(await decided(2), false);
    assert.deepEqual(
      (await waitingRuns(catalog)).map(({ dueAt }) => dueAt),
      ['2026-01-01T00:01:00.000Z'],
    );
    await catalog.destroy();
  } finally {
    await rm(home, { recursive: true });
  }
});
