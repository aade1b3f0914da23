/**
 * QEMU's traps in the way of a capture, each with a test that fails without what Stasis does about it. What they are is
 * told where that is done: migration.ts (the offset, failures without an event, cancelling), memory-pages.ts (stale pages,
 * forgotten bitmaps), capture/background.ts (pages that are counted before `cont`), capabilities.ts (settings left on or
 * reset too early), convergence.ts (guests that never converge).
 */
import assert from 'node:assert/strict';
import { open, readFile, writeFile } from 'node:fs/promises';
import { createConnection } from 'node:net';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { CaptureMethod } from '../../src/qemu/capture/capture.ts';
import { background } from '../../src/qemu/capture/background.ts';
import { NotConverging, precopy } from '../../src/qemu/capture/precopy.ts';
import { stopped } from '../../src/qemu/capture/stopped.ts';
import { bringMemory } from '../../src/qemu/restore/memory-arrival.ts';
import { readBitmap, verifyMemoryFile } from '../../src/qemu/memory/memory-file.ts';
import { STREAM_OFFSET } from '../../src/qemu/migration.ts';
import type { QmpClient } from '../../src/qemu/qmp/client.ts';
import type { QemuProcess } from '../../src/qemu/process/process.ts';
import { eager } from '../../src/qemu/restore/eager.ts';
import { lazy } from '../../src/qemu/restore/lazy.ts';
import { mapped } from '../../src/qemu/restore/mapped.ts';
import { MAIN_MEMORY } from '../../src/qemu/restore/restore.ts';
import { isRunning, resumeGuest } from '../../src/qemu/process/run-state.ts';
import { PlainQmp } from '../support/plain-qmp.ts';
import { instantOf } from './dirtier.ts';
import { diskArgs, Lab, memoryOf, MEMORY_BYTES, savedMemory } from './lab.ts';
import { recordQmp, type Line, type Said } from './recorded-qmp.ts';
import { WitnessGuest, MEMORY_BYTES as WITNESS_BYTES } from './witness-guest.ts';

const METHODS: readonly CaptureMethod[] = [precopy, background, stopped];
const EXPECTED = { offset: STREAM_OFFSET, machineType: 'pc-q35-10.0', memoryBytes: MEMORY_BYTES };
const BLOCK_BYTES = 4096;
/** Firmware and the holes for video memory: there, what a processor sees is not the block of memory. */
const LOW_MEMORY_BYTES = 1 << 20;
const SLOW_DISK = { 'max-bandwidth': 48 << 20 };
/** So often QEMU seems not to be there yet, in tests that there is a wait for it. */
const HIDDEN = 5;
const needsRoot = { skip: process.getuid?.() !== 0 && 'mounting needs root' };
const nothing = async (): Promise<void> => undefined;

for (const method of METHODS) {
  describe(method.name, () => {
    test('the file is never truncated to nothing: what stood before the stream is left', async () => {
      await using lab = await Lab.open();
      const { qmp } = await lab.launch('guest');
      const file = lab.path('memory');
      const before = Buffer.alloc(BLOCK_BYTES, 'what stood there before');
      await writeFile(file, before);
      await method.capture({ qmp, file, onPaused: nothing });
      await verifyMemoryFile(file, EXPECTED);
      assert.ok(before.equals((await readFile(file)).subarray(0, BLOCK_BYTES)));
    });

    test('the file holds memory, each page in its place, also those that became zero meanwhile', async () => {
      await using lab = await Lab.open();
      await using guest = await WitnessGuest.boot(lab, 'guest');
      await using witness = await guest.witness();
      await witness.fill(1, 32);
      await witness.dirty(200);
      const dirtiedMiB = async (): Promise<number> => (await witness.status()).dirtiedMiB;
      const saved = lab.path('saved');
      const before = await dirtiedMiB();
      const { file } = await guest.capture(method, async () => {
        await guest.qmp.execute('pmemsave', { val: 0, size: WITNESS_BYTES, filename: saved });
      });
      assert.ok((await dirtiedMiB()) > before, 'the guest went on writing pages, a third of them zeros');
      await assertPages(file, await readFile(saved));
    });

    test('settings are what they were, after success, failure and abort', async () => {
      await using lab = await Lab.open();
      const { qmp } = await lab.launch('guest');
      const before = await settingsOf(qmp);
      const file = lab.path('memory');

      await method.capture({ qmp, file, onPaused: nothing });
      assert.deepEqual(await settingsOf(qmp), before, 'after success');
      await resumeGuest(qmp);

      const onPaused = (): Promise<void> => Promise.reject(new Error('the disks stay'));
      await assert.rejects(method.capture({ qmp, file, onPaused }), /the disks stay/);
      assert.deepEqual(await settingsOf(qmp), before, 'after failure');
      assert.equal(await isRunning(qmp), true);

      const abort = new AbortController();
      const stopListening = qmp.on('MIGRATION', () => abort.abort());
      const aborted = method.capture({ qmp, file, onPaused: nothing, signal: abort.signal });
      await assert.rejects(aborted, { code: 'cancelled' });
      stopListening();
      assert.deepEqual(await settingsOf(qmp), before, 'after abort');
      assert.equal(await isRunning(qmp), true);
    });

    test('QEMU can snapshot internally afterwards, and be captured by every other method', async () => {
      await using lab = await Lab.open();
      const monitor = ['-qmp', 'unix:second.sock,server=on,wait=off'];
      const guest = await lab.launch('guest', [...diskArgs('vda', 'disk', await lab.disk('a0')), ...monitor]);
      await method.capture({ qmp: guest.qmp, file: lab.path('first'), onPaused: nothing });
      await assertSnapshots(lab, guest);
      for (const other of METHODS) {
        await resumeGuest(guest.qmp);
        const file = lab.path(`then-${other.name}`);
        let saved: Buffer = Buffer.alloc(0);
        const onPaused = async (): Promise<void> => {
          saved = await memoryOf(guest.qmp, lab.path('saved'));
        };
        await other.capture({ qmp: guest.qmp, file, onPaused });
        await verifyMemoryFile(file, EXPECTED);
        assert.ok(instantOf(saved) > 0);
        await assertPages(file, saved);
      }
    });

    test('settings are reset when QEMU has cleaned up after the migration, not before', async () => {
      await using lab = await Lab.open();
      let hidden = 0;
      const { qmp, lines } = await recordQmp(await lab.launch('guest'), (said, to, before) => {
        if (to !== 'query-yank' || !wasSent(before, 'migrate') || hidden === HIDDEN) return said;
        hidden += 1;
        return { ...said, return: [{ type: 'migration' }] };
      });
      await method.capture({ qmp, file: lab.path('memory'), onPaused: nothing });
      const reset = lines.findLastIndex((line) => 'sent' in line && line.sent === 'migrate-set-capabilities');
      const known = lines.slice(0, reset).findLast((line) => 'to' in line && line.to === 'query-yank');
      assert.doesNotMatch(JSON.stringify(known), /migration/, 'what is still going on before the reset');
      assert.equal(hidden, HIDDEN);
    });

    test('a full file system is told as such, also when QEMU announces no failure', needsRoot, async () => {
      await using lab = await Lab.open();
      const { qmp } = await recordQmp(await lab.launch('guest'), (said) =>
        said.event === 'MIGRATION' ? undefined : said,
      );
      const before = await settingsOf(qmp);
      const full = await lab.mountTmpfs('full', BLOCK_BYTES);
      await writeFile(join(full, 'all of it'), Buffer.alloc(BLOCK_BYTES));
      const signal = AbortSignal.timeout(60_000);
      const failure = method.capture({ qmp, file: join(full, 'memory'), onPaused: nothing, signal });
      await assert.rejects(failure, { code: 'no-space' });
      assert.equal(await isRunning(qmp), true);
      assert.deepEqual(await settingsOf(qmp), before);
      await method.capture({ qmp, file: lab.path('elsewhere'), onPaused: nothing });
      await verifyMemoryFile(lab.path('elsewhere'), EXPECTED);
    });
  });
}

test('loading leaves no setting behind either', async () => {
  await using lab = await Lab.open();
  const source = await lab.launch('source');
  const before = await settingsOf(source.qmp);
  await precopy.capture({ qmp: source.qmp, file: lab.path('memory'), onPaused: nothing });
  const image = await savedMemory(lab.path('memory'));
  for (const method of [eager, mapped, lazy]) {
    const target = await lab.launch(method.name, method.machineArgs(image));
    await method.load(target, image);
    await bringMemory(target, (reason) => Promise.reject(new Error(reason)));
    assert.deepEqual(await settingsOf(target.qmp), before, method.name);
  }
});

test('captures right after one another, while QEMU still cleans up after the last one', async () => {
  await using lab = await Lab.open();
  const { qmp } = await lab.launch('guest');
  for (let times = 0; times < 10; times += 1) {
    for (const method of [stopped, precopy]) {
      await method.capture({ qmp, file: lab.path('memory'), onPaused: nothing });
      await verifyMemoryFile(lab.path('memory'), EXPECTED);
    }
  }
});

test('precopy: a guest that dirties memory faster than it can be written is captured all the same', async () => {
  await using lab = await Lab.open();
  const { qmp } = await lab.launch('guest');
  using passes = qmp.watch('MIGRATION_PASS');
  // A slow disk: what the guest changes in one pass, all of it, takes a second to write in the next.
  const slowDown = passes.next().then(() => qmp.execute('migrate-set-parameters', SLOW_DISK));
  let saved: Buffer = Buffer.alloc(0);
  const onPaused = async (): Promise<void> => {
    saved = await memoryOf(qmp, lab.path('saved'));
  };
  const file = lab.path('memory');
  const result = await precopy.capture({ qmp, file, onPaused, signal: AbortSignal.timeout(120_000) });
  await slowDown;
  assert.ok(result.passes > 2, `${result.passes} passes`);
  await assertPages(file, saved);
});

test('a capture is cancelled when QEMU’s channels have taken up all that they were given', async () => {
  await using lab = await Lab.open();
  const { qmp, lines } = await recordQmp(await lab.launch('guest'));
  const request = { qmp, file: lab.path('memory'), onPaused: nothing, lastPassMs: 1 };
  // On a busy host the guest may get so little time that it can be followed after all: then nothing is cancelled.
  const failures: unknown[] = [];
  while (failures.length === 0)
    await precopy.capture(request).catch((error: unknown) => failures.push(error));
  assert.ok(failures[0] instanceof NotConverging);
  assert.equal(await isRunning(qmp), true);
  const cancelled = lines.findIndex((line) => 'sent' in line && line.sent === 'migrate_cancel');
  const counted = lines
    .slice(0, cancelled)
    .flatMap((line) => ('said' in line && line.to === 'query-migrate' ? [pagesCounted(line.said)] : []));
  assert.ok((counted.at(-1) ?? 0) > 0 && counted.at(-1) === counted.at(-2), `pages: ${counted.join(', ')}`);
});

test('background: the guest runs when pages are counted as saved, not before', async () => {
  await using lab = await Lab.open();
  const counted: number[] = [];
  const { qmp, lines } = await recordQmp(await lab.launch('guest'), (said, to, before) => {
    if (to !== 'query-migrate' || !wasSent(before, 'migrate')) return said;
    const isHidden = counted.length < HIDDEN;
    counted.push(isHidden ? 0 : pagesCounted(said));
    return isHidden ? withoutPages(said) : said;
  });
  await background.capture({ qmp, file: lab.path('memory'), onPaused: nothing });
  const cont = lines.findIndex((line) => 'sent' in line && line.sent === 'cont');
  const known = lines
    .slice(0, cont)
    .flatMap((line) => ('said' in line && line.to === 'query-migrate' ? [pagesCounted(line.said)] : []));
  assert.ok((known.at(-1) ?? 0) > 0, `pages counted before cont: ${known.join(', ')}`);
  assert.ok(counted.length > HIDDEN);
});

test('background: a guest that was stopped once more is of two instants: the capture fails', async () => {
  await using lab = await Lab.open();
  const { qmp } = await lab.launch('guest');
  const before = await settingsOf(qmp);
  using resumed = qmp.watch('RESUME');
  const stoppedAgain = resumed.next().then(() => qmp.execute('stop'));
  const failure = background.capture({ qmp, file: lab.path('memory'), onPaused: nothing });
  await assert.rejects(failure, { code: 'capture-failed', message: /two instants/ });
  await stoppedAgain;
  assert.equal(await isRunning(qmp), true);
  assert.deepEqual(await settingsOf(qmp), before);
});

/** Each page in its place, and its bit set unless it is zero. */
async function assertPages(path: string, saved: Buffer): Promise<void> {
  const { memory } = await savedMemory(path);
  const block = memory.blocks.find(({ id }) => id === MAIN_MEMORY);
  assert.ok(block !== undefined && block.sizeBytes === saved.length);
  await using file = await open(path);
  const bitmap = await readBitmap(file, block);
  const page = Buffer.alloc(BLOCK_BYTES);
  const zeros = Buffer.alloc(BLOCK_BYTES);
  for (let at = LOW_MEMORY_BYTES; at < saved.length; at += BLOCK_BYTES) {
    const inMemory = saved.subarray(at, at + BLOCK_BYTES);
    await file.read(page, 0, BLOCK_BYTES, block.pagesOffset + at);
    if (!page.equals(inMemory)) assert.fail(`the page at ${at} is not what memory held`);
    const number = at / BLOCK_BYTES;
    const isPresent = (((bitmap[number >> 3] ?? 0) >> (number & 7)) & 1) === 1;
    if (!isPresent && !inMemory.equals(zeros)) assert.fail(`the page at ${at} is said to be zero`);
  }
}

/** All that QEMU can be set to about migrations. */
async function settingsOf(qmp: QmpClient): Promise<unknown> {
  return [await qmp.execute('query-migrate-capabilities'), await qmp.execute('query-migrate-parameters')];
}

/** An internal snapshot is written, and brings back what memory was. */
async function assertSnapshots(lab: Lab, { qmp, runDirectory }: QemuProcess): Promise<void> {
  const socket = createConnection(join(runDirectory, 'second.sock'));
  const monitor = await PlainQmp.over(socket, socket);
  const job = async (command: string): Promise<void> => {
    using changes = qmp.watch('JOB_STATUS_CHANGE');
    const disks = { vmstate: 'disk', devices: ['disk'] };
    await monitor.ask(command, { 'job-id': command, tag: 'internal', ...disks });
    await changes.next(({ data }) => data.id === command && data.status === 'concluded');
    const [info] = await qmp.execute('query-jobs');
    assert.equal(info?.error, undefined);
    await qmp.execute('job-dismiss', { id: command });
  };
  await resumeGuest(qmp);
  await qmp.execute('stop');
  const saved = await memoryOf(qmp, lab.path('saved'));
  await job('snapshot-save');
  await resumeGuest(qmp);
  while (saved.equals(await memoryOf(qmp, lab.path('later')))); // it goes on
  await qmp.execute('stop');
  await job('snapshot-load');
  assert.ok(saved.equals(await memoryOf(qmp, lab.path('loaded'))), 'memory is what it was');
  socket.destroy();
}

/** The pages that an answer counts as saved. */
function pagesCounted({ return: answer }: Said): number {
  if (answer === undefined || Array.isArray(answer) || answer.ram === undefined) return 0;
  return answer.ram.normal + answer.ram.duplicate;
}

function withoutPages(said: Said): Said {
  const { return: answer } = said;
  if (answer === undefined || Array.isArray(answer) || answer.ram === undefined) return said;
  return {
    ...said,
    return: { ...answer, status: 'active', ram: { ...answer.ram, normal: 0, duplicate: 0 } },
  };
}

function wasSent(lines: readonly Line[], command: string): boolean {
  return lines.some((line) => 'sent' in line && line.sent === command);
}
