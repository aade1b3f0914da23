/** Restore method lazy through the client: the guest runs while its memory is still on its way. Proven by content. */
import assert from 'node:assert/strict';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { findPagerProcesses, waitForEnd } from '../../src/qemu/process/process-scan.ts';
import { Lab } from '../support/lab.ts';
import { checkHousekeeping, checkImages, contentOf, type Content } from '../support/rules.ts';

const GUEST = 'web1';
const FILL_MIB = 32;
/** So slow that what a test does happens before the memory has arrived: it takes some seconds. */
const SLOW = { STASIS_LAZY_PUSH_MBPS: '20' };

/** A guest with an image `first`, and what is in both. */
async function savedGuest(lab: Lab): Promise<Content> {
  {
    await using witness = await lab.running(GUEST);
    await witness.fill(1, FILL_MIB);
  }
  const content = await contentOf(lab, GUEST);
  await lab.client.createSaveImage(GUEST, { name: 'first', live: true });
  return content;
}

async function pagersOf(lab: Lab): Promise<readonly number[]> {
  const directory = join(lab.paths.run, 'guests');
  const names = await readdir(directory);
  return (await Promise.all(names.map((name) => findPagerProcesses(join(directory, name))))).flat();
}

/** They have nothing more to do: each ends by itself. */
async function pagersEnd(lab: Lab): Promise<void> {
  await Promise.all((await pagersOf(lab)).map((pid) => waitForEnd(pid, 30_000)));
}

async function killPager(lab: Lab): Promise<void> {
  const [pid, ...others] = await pagersOf(lab);
  assert.ok(pid !== undefined && others.length === 0, 'one pager is at work');
  process.kill(pid, 'SIGKILL');
}

async function replacedPagers(lab: Lab): Promise<number> {
  const events = await lab.client.listEvents({ guest: GUEST });
  return events.filter(({ action }) => action === 'pager-replaced').length;
}

describe('a guest that is restored lazily', { concurrency: 1 }, () => {
  test('has its content, and is saved live again as soon as its memory is there', async () => {
    await using lab = await Lab.create(undefined, SLOW);
    const content = await savedGuest(lab);
    await lab.client.restoreSaveImage(GUEST, 'first', { method: 'lazy' });
    assert.equal((await pagersOf(lab)).length, 1);
    // A save that is cancelled before the memory is there leaves nothing; the next one waits.
    const save = await lab.client.createSaveImage(GUEST, { name: 'never', live: true }, { wait: false });
    await lab.client.cancelOperation(save.id);
    assert.equal((await lab.client.followOperation(save.id)).state, 'cancelled');
    await lab.client.createSaveImage(GUEST, { name: 'second', live: true });
    await pagersEnd(lab);
    assert.deepEqual(await contentOf(lab, GUEST), content);
    await checkImages(lab, GUEST, new Map(['first', 'second'].map((name) => [name, content])));
    await checkHousekeeping(lab, GUEST);
  });

  test('keeps its image until its memory is there, though that is to be deleted', async () => {
    await using lab = await Lab.create(undefined, SLOW);
    const content = await savedGuest(lab);
    await lab.client.restoreSaveImage(GUEST, 'first', { method: 'lazy' });
    const deleted = lab.client.deleteSaveImage(GUEST, 'first');
    await killPager(lab);
    await deleted;
    await pagersEnd(lab);
    assert.equal(await replacedPagers(lab), 1);
    assert.deepEqual(await contentOf(lab, GUEST), content);

    await lab.client.createSaveImage(GUEST, { name: 'next' });
    await lab.client.restoreSaveImage(GUEST, 'next', { method: 'lazy', delete: true });
    await pagersEnd(lab);
    assert.deepEqual(await contentOf(lab, GUEST), content);
    await checkHousekeeping(lab, GUEST);
  });

  test('gets its memory whether the daemon, its pager or both are killed', async () => {
    await using lab = await Lab.create(undefined, SLOW);
    const content = await savedGuest(lab);
    await lab.client.restoreSaveImage(GUEST, 'first', { method: 'lazy' });
    await lab.endDaemon();
    await lab.startDaemon(SLOW);
    assert.deepEqual(await contentOf(lab, GUEST), content);
    assert.equal(await replacedPagers(lab), 0);

    await lab.client.restoreSaveImage(GUEST, 'first', { method: 'lazy' });
    await killPager(lab);
    assert.deepEqual(await contentOf(lab, GUEST), content);
    assert.equal(await replacedPagers(lab), 1);

    await lab.client.restoreSaveImage(GUEST, 'first', { method: 'lazy' });
    await lab.endDaemon();
    await killPager(lab);
    await lab.startDaemon(SLOW);
    assert.deepEqual(await contentOf(lab, GUEST), content);
    assert.equal(await replacedPagers(lab), 2);
    await lab.client.createSaveImage(GUEST, { name: 'second', live: true });
    await checkImages(lab, GUEST, new Map([['second', content]]));
    await checkHousekeeping(lab, GUEST);
  });

  test('is given no other pager when it is ended meanwhile', async () => {
    await using lab = await Lab.create(undefined, SLOW);
    const content = await savedGuest(lab);
    for (let round = 0; round < 3; round++) {
      await lab.client.restoreSaveImage(GUEST, 'first', { method: 'lazy' });
      await killPager(lab); // whoever took over is known to end as soon as it ends
      while ((await replacedPagers(lab)) === round);
      await lab.client.stop(GUEST);
      assert.equal(await replacedPagers(lab), round + 1);
    }
    await lab.client.restoreSaveImage(GUEST, 'first');
    assert.deepEqual(await contentOf(lab, GUEST), content);
    await checkHousekeeping(lab, GUEST);
  });

  test('whose pager ended while nobody watched, and whose QEMU does not answer, has a reason to show', async () => {
    await using lab = await Lab.create(undefined, SLOW);
    const content = await savedGuest(lab);
    await lab.client.restoreSaveImage(GUEST, 'first', { method: 'lazy' });
    await lab.endDaemon();
    await killPager(lab);
    for (const pid of await lab.qemuProcesses()) process.kill(pid, 'SIGSTOP');
    await lab.startDaemon();
    const { stateReason } = await lab.client.getGuest(GUEST);
    assert.match(stateReason ?? '', /memory.*restore it again/);
    await lab.client.restoreSaveImage(GUEST, 'first');
    assert.deepEqual(await contentOf(lab, GUEST), content);
    await checkHousekeeping(lab, GUEST);
  });
});
