import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { background } from '../../src/qemu/capture/background.ts';
import { precopy } from '../../src/qemu/capture/precopy.ts';
import { bringMemory, memoryArrived } from '../../src/qemu/restore/memory-arrival.ts';
import { memoryIsArriving } from '../../src/qemu/migration.ts';
import { readPagerStatus, writePagerRequest } from '../../src/qemu/pager/pager-files.ts';
import { startPager } from '../../src/qemu/pager/pager-process.ts';
import type { PagerRequest } from '../../src/qemu/pager/pager.ts';
import { findPagerProcesses, waitForEnd } from '../../src/qemu/process/process-scan.ts';
import { killQemu, type QemuProcess } from '../../src/qemu/process/process.ts';
import { eager } from '../../src/qemu/restore/eager.ts';
import { lazy } from '../../src/qemu/restore/lazy.ts';
import type { SavedMemory } from '../../src/qemu/restore/restore.ts';
import { resumeGuest } from '../../src/qemu/process/run-state.ts';
import { instantOf } from './dirtier.ts';
import { Lab, memoryOf, savedMemory } from './lab.ts';

const CAPTURE = { timeLimitMs: 100, onPaused: async () => undefined };
const HUGE_PAGE_BYTES = 2 << 20;
const OVERCOMMIT = '/proc/sys/vm/nr_overcommit_hugepages';
/** After the first piece, nothing for days: all else comes because it was asked for. */
const HELD_BACK = { pushLimit: 1 };

/** A guest's memory file, and what was in it. */
async function save(
  lab: Lab,
  args: readonly string[] = [],
): Promise<{ image: SavedMemory; contents: Buffer }> {
  const source = await lab.launch('source', args);
  const file = lab.path('memory');
  let contents: Buffer = Buffer.alloc(0);
  await precopy.capture({
    ...CAPTURE,
    qmp: source.qmp,
    file,
    onPaused: async () => {
      contents = await memoryOf(source.qmp, lab.path('saved'));
    },
  });
  return { image: await savedMemory(file), contents };
}

async function load(
  lab: Lab,
  image: SavedMemory,
  options: Partial<PagerRequest> = {},
  args: readonly string[] = [],
): Promise<QemuProcess> {
  const request = { file: image.file, mainBlock: 'pc.ram', hostPageBytes: 4096, ...options };
  const pager = await startPager(lab.runDirectory('target'), request);
  const target = await lab.launch('target', [...lazy.machineArgs(image), ...args]);
  await lazy.load(target, { ...image, pager });
  return target;
}

async function killPager({ runDirectory }: QemuProcess): Promise<void> {
  const [pid] = await findPagerProcesses(runDirectory);
  if (pid === undefined) return;
  process.kill(pid, 'SIGKILL');
  await waitForEnd(pid, 10_000);
}

describe('lazy restore', { concurrency: 1 }, () => {
  test('all memory arrives as it was saved; then a capture in the background is possible', async () => {
    await using lab = await Lab.open();
    const { image, contents } = await save(lab);
    const target = await load(lab, image);
    await memoryArrived(target);
    await bringMemory(target, () => assert.fail('nothing was to recover'));
    assert.ok(contents.equals(await memoryOf(target.qmp, lab.path('loaded'))), 'the memory differs');
    while ((await findPagerProcesses(target.runDirectory)).length > 0) await delay(10);
    assert.equal((await readPagerStatus(target.runDirectory))?.state, 'done');

    await resumeGuest(target.qmp);
    const again = lab.path('again');
    await background.capture({ ...CAPTURE, qmp: target.qmp, file: again });
    const next = await savedMemory(again);
    const loaded = await lab.launch('loaded', eager.machineArgs(next));
    await eager.load(loaded, next);
    assert.ok(instantOf(await memoryOf(loaded.qmp, lab.path('last'))) >= instantOf(contents));
  });

  test('what is asked for comes, zero pages too, however long the rest is held back', async () => {
    await using lab = await Lab.open();
    const { image, contents } = await save(lab);
    const target = await load(lab, image, HELD_BACK);
    // QEMU itself touches each page to write this file.
    assert.ok(contents.equals(await memoryOf(target.qmp, lab.path('loaded'))), 'the memory differs');
    assert.equal(await memoryIsArriving(target.qmp), true);
  });

  test('a pager that is killed is replaced by one that brings what is missing, again and again', async () => {
    await using lab = await Lab.open();
    const { image, contents } = await save(lab);
    const target = await load(lab, image, { pushLimit: 8e6 });
    const reasons: string[] = [];
    await killPager(target);
    await bringMemory(target, async (reason) => {
      reasons.push(reason);
      if (reasons.length === 2) await resumeGuest(target.qmp); // what it touches itself comes at once
      if (reasons.length <= 3)
        void memoryArrived(target, { onProgress: killing(target) }).catch(() => undefined);
    });
    assert.ok(reasons.length >= 2, `replaced ${reasons.length} times`);
    await target.qmp.execute('stop');
    assert.ok(instantOf(await memoryOf(target.qmp, lab.path('loaded'))) >= instantOf(contents));
  });

  test('QEMU itself may wait for a page when the pager dies: it is reached all the same', async () => {
    await using lab = await Lab.open();
    const { image, contents } = await save(lab);
    const target = await load(lab, image, HELD_BACK);
    await killPager(target);
    const loaded = memoryOf(target.qmp, lab.path('loaded'));
    await writePagerRequest(target.runDirectory, {
      file: image.file,
      mainBlock: 'pc.ram',
      hostPageBytes: 4096,
    });
    await bringMemory(target, () => Promise.resolve());
    assert.ok(contents.equals(await loaded), 'the memory differs');
  });

  test('when the file is gone too, that is told, and nothing waits for ever', async () => {
    await using lab = await Lab.open();
    const { image } = await save(lab);
    const target = await load(lab, image, HELD_BACK);
    await killPager(target);
    const file = lab.path('gone');
    await writePagerRequest(target.runDirectory, { file, mainBlock: 'pc.ram', hostPageBytes: 4096 });
    await assert.rejects(
      bringMemory(target, () => Promise.resolve()),
      { code: 'restore-failed', message: /ENOENT.*restore it again/ },
    );
  });

  test('a pager that can not even begin fails the load', async () => {
    await using lab = await Lab.open();
    const { image } = await save(lab);
    await assert.rejects(load(lab, image, { file: lab.path('none') }), {
      code: 'restore-failed',
      message: /ENOENT/,
    });
  });

  test('a pager ends with its QEMU', async () => {
    await using lab = await Lab.open();
    const { image } = await save(lab);
    const target = await load(lab, image, HELD_BACK);
    const [pager = 0] = await findPagerProcesses(target.runDirectory);
    process.kill(target.pid, 'SIGKILL');
    await waitForEnd(pager, 10_000);
    await assert.rejects(
      bringMemory(target, () => Promise.resolve()),
      { code: 'guest-crashed' },
    );
  });

  test('what QEMU can not load is told in its own words', async () => {
    await using lab = await Lab.open();
    const { image } = await save(lab);
    await assert.rejects(load(lab, image, { hostPageBytes: HUGE_PAGE_BYTES }), {
      code: 'restore-failed',
      message: /Postcopy needs matching RAM page sizes/,
    });
  });

  test('huge pages arrive whole', { skip: process.getuid?.() !== 0 && 'needs root' }, async () => {
    const before = await readFile(OVERCOMMIT, 'utf8');
    await using lab = await Lab.open();
    try {
      await writeFile(OVERCOMMIT, String(Number(before) + 64));
      const { image, contents } = await save(lab);
      const backend = 'memory-backend-memfd,id=pc.ram,size=64M,hugetlb=on,hugetlbsize=2M';
      const huge = ['-object', backend, '-machine', 'memory-backend=pc.ram'];
      const target = await load(lab, image, { hostPageBytes: HUGE_PAGE_BYTES, pushLimit: 8e6 }, huge);
      await killPager(target);
      await bringMemory(target, () => Promise.resolve());
      assert.ok(contents.equals(await memoryOf(target.qmp, lab.path('loaded'))), 'the memory differs');
      await killQemu(target.runDirectory, { graceMs: 0 });

      const other = await load(lab, image, { hostPageBytes: HUGE_PAGE_BYTES, ...HELD_BACK }, huge);
      assert.ok(contents.equals(await memoryOf(other.qmp, lab.path('loaded'))), 'what was asked for differs');
    } finally {
      await writeFile(OVERCOMMIT, before);
    }
  });
});

/** Kills the pager once it has brought more than at first. */
function killing(target: QemuProcess): (progress: { bytesDone: number }) => void {
  let first: number | undefined;
  let isKilled = false;
  return ({ bytesDone }) => {
    first ??= bytesDone;
    if (bytesDone <= first || isKilled) return;
    isKilled = true;
    void killPager(target);
  };
}
