import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Lab } from '../support/lab.ts';

test('a live save, changed memory and disks, and a restore that finds both as they were', async () => {
  await using lab = await Lab.create();
  const witness = await lab.running('web1');
  const filled = await witness.fill(7, 16);
  await witness.hammer('off');
  const before = await witness.write('vda', 8, 4, 11);
  await witness.hammer('on');

  const image = await lab.client.createSaveImage('web1', { name: 'first', live: true, method: 'precopy' });
  assert.equal(image.state, 'ready');
  assert.equal(image.method, 'precopy');

  await witness.touch(500, 3);
  await witness.write('vda', 8, 4, 12);
  assert.notEqual((await witness.checksum()).checksum, filled.checksum);
  await witness.close();

  for (let round = 0; round < 3; round += 1) {
    await lab.client.restoreSaveImage('web1', 'first');
    await using again = await lab.witness('web1');
    const memory = await again.checksum();
    assert.deepEqual(
      { checksum: memory.checksum, errors: memory.errors },
      { checksum: filled.checksum, errors: 0 },
    );
    assert.equal((await again.read('vda', 8, 4)).checksum, before.checksum);
    assert.equal((await again.status()).mismatches, 0);
    await again.touch(100, round);
    await again.write('vda', 8, 4, 50 + round);
  }
  await lab.client.deleteSaveImage('web1', 'first');
  const after = await lab.witness('web1');
  assert.equal((await after.status()).mismatches, 0);
  assert.deepEqual(await lab.files(), []);
});
