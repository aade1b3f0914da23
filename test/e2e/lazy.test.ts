/** Restore method lazy through the client: the guest runs while its memory is still on its way. */
import assert from 'node:assert/strict';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { findPagerProcesses } from '../../src/qemu/process-scan.ts';
import { Lab } from '../support/lab.ts';
import { checkHousekeeping, checkImages, contentOf } from '../support/rules.ts';

const GUEST = 'web1';
/** So slow that all that a test does happens before the memory has arrived: 100 MiB take 10 s. */
const SLOW = { STASIS_LAZY_PUSH_MBPS: '10' };

test('lazy: a guest runs at once, is saved live again when its memory is there, and both images restore', async () => {
  await using lab = await Lab.create();
  {
    await using witness = await lab.running(GUEST);
    await witness.fill(1, 32);
  }
  const content = await contentOf(lab, GUEST);
  await lab.client.createSaveImage(GUEST, { name: 'first', live: true });
  await lab.client.restoreSaveImage(GUEST, 'first', { method: 'lazy' });
  const second = await lab.client.createSaveImage(GUEST, { name: 'second', live: true });
  assert.equal(second.state, 'ready');
  assert.deepEqual(await contentOf(lab, GUEST), content);
  await checkImages(
    lab,
    GUEST,
    new Map([
      ['first', content],
      ['second', content],
    ]),
  );
  await checkHousekeeping(lab, GUEST);
});

test('lazy: a pager that is killed is replaced, whether a daemon watches or not', async () => {
  await using lab = await Lab.create(undefined, SLOW);
  {
    await using witness = await lab.running(GUEST);
    await witness.fill(1, 48);
  }
  const content = await contentOf(lab, GUEST);
  await lab.client.createSaveImage(GUEST, { name: 'first', live: true });
  await lab.client.restoreSaveImage(GUEST, 'first', { method: 'lazy' });
  process.kill(await pagerOf(lab), 'SIGKILL');
  assert.deepEqual(await contentOf(lab, GUEST), content);

  await lab.client.restoreSaveImage(GUEST, 'first', { method: 'lazy' });
  const pager = await pagerOf(lab);
  await lab.endDaemon();
  process.kill(pager, 'SIGKILL');
  await lab.startDaemon();
  assert.deepEqual(await contentOf(lab, GUEST), content);
});

async function pagerOf(lab: Lab): Promise<number> {
  for (const name of await readdir(join(lab.paths.run, 'guests'))) {
    const [pid] = await findPagerProcesses(join(lab.paths.run, 'guests', name));
    if (pid !== undefined) return pid;
  }
  throw new Error('no pager');
}
