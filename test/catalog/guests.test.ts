import assert from 'node:assert/strict';
import { test } from 'node:test';
import { clearInstance, getGuestByUuid, setInstance } from '../../src/catalog/guests.ts';
import { insertGuestNamed, ownCatalog } from '../support/own-catalog.ts';

const GUEST = 'a';

test('the end of a process is not that of the one that took its place', async () => {
  await using own = await ownCatalog();
  const { catalog } = own;
  const stateOf = async () => {
    const { instance, crashed } = await getGuestByUuid(catalog, GUEST);
    return [instance, crashed];
  };
  await insertGuestNamed(catalog, GUEST);
  await setInstance(catalog, GUEST, 'first');
  await setInstance(catalog, GUEST, 'second'); // a restore, while the first one crashed
  assert.equal(await clearInstance(catalog, GUEST, 'first', 'it crashed'), false);
  assert.deepEqual(await stateOf(), ['second', 0]);
  assert.equal(await clearInstance(catalog, GUEST, 'second', 'it crashed'), true);
  assert.deepEqual(await stateOf(), [null, 1]);
  assert.equal(await clearInstance(catalog, GUEST, 'second', null), false);
  assert.equal(await clearInstance(catalog, GUEST, null, null), true);
  assert.deepEqual(await stateOf(), [null, 0]);
});
