import assert from 'node:assert/strict';
import { open } from 'node:fs/promises';
import { test } from 'node:test';
import { Lab } from './support/lab.ts';
import { WitnessError } from './support/witness.ts';

// The guest without an operating system: what it witnesses must be true, as with the other one (test-guest.test.ts).

test('the bare guest proves its memory and disks, and notices a disk that is of another instant', async () => {
  await using lab = await Lab.create();
  await using witness = await lab.running('web1', { system: 'bare', format: 'raw' });
  assert.deepEqual(await witness.ready(), { disks: ['vda', 'vdb'] });

  const filled = await witness.fill(1, 8);
  const touched = await witness.touch(500, 5);
  assert.notEqual(touched.checksum, filled.checksum);
  assert.deepEqual(await witness.checksum(), { checksum: touched.checksum, errors: 0, mib: 8 });
  assert.equal((await witness.fill(1, 8)).checksum, filled.checksum, 'contents follow from the seed');
  await assert.rejects(witness.fill(1, 9), WitnessError);

  const wrote = await witness.write('vdb', 62, 2, 3);
  assert.deepEqual(await witness.read('vdb', 62, 2), wrote);
  assert.notEqual((await witness.write('vda', 62, 2, 4)).checksum, wrote.checksum);
  for (const [disk, offsetMiB] of [
    ['vdc', 0],
    ['vda', 63],
    ['vda', 1],
  ] as const)
    await assert.rejects(witness.write(disk, offsetMiB, 2, 1), WitnessError);

  await witness.hammer('off');
  const { counter, disks, mismatches } = await witness.status();
  assert.ok(counter > 0);
  assert.deepEqual(disks, { vda: { counter }, vdb: { counter } });
  assert.equal(mismatches, 0);
  const second = (await lab.disksOf('web1'))[1];
  assert.ok(second);
  {
    await using file = await open(second.path, 'r+');
    await file.write(Buffer.alloc(512), 0, 512, 1024 ** 2);
  }
  const { mismatches: seen, firstMismatch } = await witness.status();
  assert.equal(seen, 1);
  assert.deepEqual(firstMismatch, { disk: 'vdb', memory: counter, onDisk: 0 });
  await witness.hammer('on');
  await lab.client.stop('web1');
  await lab.client.start('web1');
  await using again = await lab.witness('web1');
  const { apartAtStart, counter: later, mismatches: none } = await again.status();
  assert.ok(apartAtStart <= 1 && later >= counter && none === 0, 'it goes on from its disks');
});
