import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Lab } from '../support/lab.ts';
import { BOTH_VOLUMES, volumes } from '../support/lvm-ground.ts';
import { loseCatalog, loseGuestFile, rebuild } from '../support/recovery.ts';
import { changeContent, checkHousekeeping, checkImages, contentOf, type Content } from '../support/rules.ts';

// Run by lvm.test.ts inside the guest with LVM, when it is asked for.

const GUEST = 'web1';

for (const { name, isRecorded } of [
  { name: 'the catalog is lost', isRecorded: true },
  { name: 'the record of the guest is lost with it', isRecorded: false },
])
  test(`images that are snapshots of volumes come back: ${name}`, async () => {
    await using lab = await Lab.on(BOTH_VOLUMES);
    const { client } = lab;
    const expected = new Map<string, Content>();
    {
      await using witness = await lab.running(GUEST, { system: 'bare' });
      await witness.fill(1, 1);
    }
    const save = async (image: string, seed: number) => {
      expected.set(image, await changeContent(lab, GUEST, seed));
      await client.createSaveImage(GUEST, { name: image, live: true, maxPauseMs: BOTH_VOLUMES.maxPauseMs });
    };
    await save('a', 10);
    await client.restoreSaveImage(GUEST, 'a'); // from now on it writes to a snapshot of a snapshot, and to an overlay over one
    await save('b', 11);
    const present = await changeContent(lab, GUEST, 12);
    const before = await volumes();
    const { uuid } = await client.getGuest(GUEST);

    for (const isRunning of [true, false]) {
      if (!isRunning) await client.stop(GUEST);
      await lab.recordsWritten();
      await lab.endDaemon('SIGTERM');
      await loseCatalog(lab);
      if (!isRecorded) await loseGuestFile(lab, uuid);
      const { guests, leftOut, notes } = await rebuild(lab);
      assert.deepEqual(
        guests.map((guest) => [
          guest.isRunning,
          guest.images.map((image) => [image.name, image.state, image.damage]),
        ]),
        [
          [
            isRunning,
            [
              ['a', 'ready', null],
              ['b', 'ready', null],
            ],
          ],
        ],
      );
      assert.deepEqual([leftOut, notes], [[], []]);
      await lab.startDaemon();
      if (isRunning) assert.deepEqual(await volumes(), before, 'no volume is taken for a stray');
      // A stopped guest's own volume is replaced by the one that it was on.
      for (const { id, state } of await client.listOperations())
        if (state === 'running') await client.followOperation(id);
      if (isRunning) assert.deepEqual(await contentOf(lab, GUEST), present, 'the guest that ran goes on');
    }
    await client.start(GUEST);
    assert.equal((await contentOf(lab, GUEST)).disk, present.disk, 'it is on what it was written to');
    await checkHousekeeping(lab, GUEST);
    await checkImages(lab, GUEST, expected);
  });
