/** A default image is consumed by the guest that goes on from it: what a crash brings back after that must not be half of it. */
import assert from 'node:assert/strict';
import { rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { test } from 'node:test';
import { killAll } from '../support/kill-all.ts';
import { Lab } from '../support/lab.ts';
import { checkHousekeeping } from '../support/rules.ts';

test('an image whose memory is gone is not given back, though its guest has left no trace on its disks', async () => {
  await using lab = await Lab.create();
  await using witness = await lab.running('web1', { system: 'bare', disks: 1 });
  await witness.fill(1, 1);
  await lab.client.pause('web1'); // as it will be again: it writes nothing
  await lab.client.createSaveImage('web1');
  await lab.failAt('restore/delete-image:before=kill');
  const started = lab.client.start('web1').catch(() => undefined); // it asks the next daemon again
  await lab.daemonEnded();
  await killAll(await lab.qemuProcesses());
  // So far it came: the catalog still has the image.
  for (const file of await lab.files()) await rm(dirname(file), { recursive: true, force: true });
  await lab.failAt();
  await lab.startDaemon();
  await started;
  assert.deepEqual(await lab.client.listSaveImages('web1'), []);
  await checkHousekeeping(lab, 'web1');
  await lab.client.start('web1');
  await using again = await lab.witness('web1');
  assert.equal((await again.status()).mismatches, 0);
});
