/** The host loses its power: what was not yet on the disk is gone. */
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { truncate } from 'node:fs/promises';
import { FrailDisk, noFrailDisk } from '../support/frail-disk.ts';
import { Lab } from '../support/lab.ts';

const GUEST = 'web1';

test('a guest with a TPM can be started after a power cut', { skip: noFrailDisk() }, async () => {
  await using disk = await FrailDisk.open(512, 'ext4');
  await using lab = await Lab.create(disk.directory);
  await lab.define(GUEST, { system: 'bare', disks: 1, extra: { tpm: true } });
  await lab.client.start(GUEST);
  await lab.client.createSaveImage(GUEST, { name: 'a', live: true });
  await lab.client.restoreSaveImage(GUEST, 'a');
  await disk.refuseWrites();
  await lab.endDaemon();
  await disk.restart();
  const stored = (await lab.files()).filter((file) => file.endsWith('tpm2-00.permall'));
  assert.equal(stored.length, 1);
  await lab.startDaemon();
  await lab.client.start(GUEST);

  // What it stored later swtpm may not have made durable.
  await lab.client.stop(GUEST);
  for (const file of stored) await truncate(file);
  await lab.client.start(GUEST);
  assert.match(await lab.log(), /what the TPM stored was not yet on the disk/);
});
