/** A disk on which nothing more can be written must not keep an operator from making room on it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { FrailDisk, noFrailDisk } from '../support/frail-disk.ts';
import { Lab } from '../support/lab.ts';
import { checkHousekeeping } from '../support/rules.ts';

const GUEST = 'web1';
const TIMES = 12;
/** To be merged: more than an image without its memory gives back. */
const WRITTEN_MIB = 24;

test('on a full disk guests are stopped and images deleted', { skip: noFrailDisk() }, async () => {
  await using disk = await FrailDisk.open(512, 'xfs');
  await using lab = await Lab.create(disk.directory);
  const { client } = lab;
  await lab.define(GUEST, { system: 'bare', disks: 1 });
  await client.start(GUEST);
  await client.createSaveImage(GUEST, { name: 'a', live: true });
  {
    await using witness = await lab.witness(GUEST);
    await witness.write('vda', 32, WRITTEN_MIB, 1);
  }
  await disk.fill(0);
  await assert.rejects(lab.makeDisk('another', 64), 'the disk is full');

  await client.deleteSaveImage(GUEST, 'a');
  await client.stop(GUEST);
  assert.equal((await client.getGuest(GUEST)).state, 'stopped');
  assert.deepEqual(await client.listSaveImages(GUEST), []);
  for (let time = 0; time < TIMES; time += 1) await client.setPolicy(GUEST, { order: time });

  const left = await lab.files();
  assert.ok(left.length > 0, 'there is no room to merge what nobody needs any more');
  await disk.free();
  while ((await lab.files()).length > 0) await delay(50); // nobody asks for it
  await client.start(GUEST);
  await client.createSaveImage(GUEST, { name: 'b' });
  await checkHousekeeping(lab, GUEST);
  assert.deepEqual((await client.hostStatus()).readiness.remarks, []);
});
