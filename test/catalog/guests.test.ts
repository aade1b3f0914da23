import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { openCatalog } from '../../src/catalog/database.ts';
import { clearInstance, getGuestByUuid, insertGuest, setInstance } from '../../src/catalog/guests.ts';

test('the end of a process is not that of the one that took its place', async () => {
  const home = await mkdtemp(join(tmpdir(), 'stasis-guests-'));
  try {
    const catalog = await openCatalog(join(home, 'catalog.sqlite'));
    const uuid = crypto.randomUUID();
    await insertGuest(catalog, {
      ...{ uuid, name: 'web1', definition: '{}', instance: null, crashed: 0 },
      ...{ stateReason: null, currentImage: null, createdAt: '' },
    });
    await setInstance(catalog, uuid, 'first');
    await setInstance(catalog, uuid, 'second'); // a restore, while the first one crashed
    assert.equal(await clearInstance(catalog, uuid, 'first', 'it crashed'), false);
    assert.deepEqual(await stateOf(), ['second', 0]);
    assert.equal(await clearInstance(catalog, uuid, 'second', 'it crashed'), true);
    assert.deepEqual(await stateOf(), [null, 1]);
    assert.equal(await clearInstance(catalog, uuid, 'second', null), false);
    assert.equal(await clearInstance(catalog, uuid, null, null), true);
    assert.deepEqual(await stateOf(), [null, 0]);
    await catalog.destroy();

    async function stateOf() {
      const { instance, crashed } = await getGuestByUuid(catalog, uuid);
      return [instance, crashed];
    }
  } finally {
    await rm(home, { recursive: true });
  }
});
