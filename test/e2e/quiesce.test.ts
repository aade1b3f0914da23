/**
 * Saves of a guest whose file systems are frozen for that instant, with the distribution's guest agent and a program that
 * never stops writing to ext4. That a disk was frozen its superblock says: a mounted file system needs recovery, a frozen one doesn't.
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import type { SaveRequest } from '../../src/api/schemas.ts';
import { agentAnswers, startWritingFiles, writesOn } from '../support/files-guest.ts';
import { Lab } from '../support/lab.ts';

const GUEST = 'web1';
const run = promisify(execFile);

test('a live save of a frozen guest: its disks need no recovery, and the guest and its restores write on', async () => {
  await using lab = await Lab.create();
  await startWritingFiles(lab, GUEST);
  for (const method of ['precopy', 'background'] as const) {
    const image = await lab.client.createSaveImage(GUEST, {
      name: method,
      live: true,
      quiesce: 'require',
      method,
    });
    assert.deepEqual([image.quiesce, image.quiesceReason], ['frozen', null]);
    assert.ok(image.frozenMs !== null && image.frozenMs < 20_000, `frozen for ${image.frozenMs} ms`);
    assert.equal(await needsRecovery(lab, method), false, `${method}: the disk was frozen`);
    await writesOn(lab, GUEST);
  }
  await lab.client.createSaveImage(GUEST, { name: 'plain', live: true });
  assert.equal(await needsRecovery(lab, 'plain'), true, 'without a freeze it is as after a power cut');

  await lab.client.restoreSaveImage(GUEST, 'precopy');
  assert.match(await thawOf(lab, 'restore'), /^done: file systems thawed/);
  await writesOn(lab, GUEST);
  for (const clone of ['clone1', 'clone2']) {
    await lab.client.restoreSaveImage(GUEST, 'background', { asNewGuest: clone });
    assert.match(await thawOf(lab, 'clone'), /^done/);
    await writesOn(lab, clone);
  }

  // A guest that is restored paused stays frozen until it is let run, also in an image that is made of it meanwhile.
  await lab.client.restoreSaveImage(GUEST, 'precopy', { paused: true });
  assert.match((await lab.client.getGuest(GUEST)).stateReason ?? '', /frozen, and thawed when it is resumed/);
  await lab.client.createSaveImage(GUEST, { name: 'again', live: true });
  await lab.client.resume(GUEST);
  assert.match(await thawOf(lab, 'resume'), /^done/);
  await writesOn(lab, GUEST);
  await lab.client.restoreSaveImage(GUEST, 'again', { paused: false });
  assert.match(await thawOf(lab, 'restore'), /^done/);
  await writesOn(lab, GUEST);
});

test('a guest that is saved frozen and stopped is thawed when it starts', async () => {
  await using lab = await Lab.create();
  await startWritingFiles(lab, GUEST);
  const image = await lab.client.createSaveImage(GUEST, { quiesce: true });
  assert.deepEqual([image.quiesce, image.frozenMs], ['frozen', null]);
  assert.equal(await needsRecovery(lab, 'default'), false);
  await lab.client.start(GUEST);
  await writesOn(lab, GUEST);
});

test('whatever ends a save in the middle, the guest is thawed', async () => {
  await using lab = await Lab.create();
  await startWritingFiles(lab, GUEST);
  const save = (request: SaveRequest) =>
    lab.client.createSaveImage(GUEST, { name: 'x', quiesce: true, ...request }).then(
      () => 'done',
      (error: unknown) => String(error),
    );
  for (const [live, failpoint] of [
    [true, 'quiesce:frozen=kill'],
    [true, 'quiesce:frozen=error'],
    [true, 'pause:before-switch=kill'],
    [false, 'quiesce:frozen=kill'],
    [false, 'verify:before=error'],
    [false, 'verify:before=kill'],
  ] as const) {
    await lab.failAt(`save/${failpoint}`);
    const outcome = save({ live });
    if (failpoint.endsWith('kill')) await lab.daemonEnded();
    else assert.match(await outcome, /failpoint/, `${failpoint} was reached`);
    await lab.endDaemon('SIGTERM');
    await lab.failAt();
    await lab.startDaemon();
    await outcome;
    await writesOn(lab, GUEST, `${live ? 'live' : 'stopping'} save, ${failpoint}`);
    assert.deepEqual(await lab.client.listSaveImages(GUEST), []);
  }
  // Cancelled while it is frozen.
  await lab.failAt('save/quiesce:frozen=halt');
  const cancelled = save({ live: true });
  await lab.daemonHalted();
  process.kill(lab.daemonPid, 'SIGCONT');
  const [operation] = await lab.client.listOperations();
  await lab.client.cancelOperation(operation?.id ?? '').catch(() => undefined);
  await cancelled;
  await writesOn(lab, GUEST, 'cancelled');
});

test('a guest that can not be frozen is saved all the same, and says why, unless that is required', async () => {
  await using lab = await Lab.create();
  await using witness = await lab.running(GUEST, { disks: 1, cmdline: 'agent', extra: { agent: true } });
  await witness.close();
  await agentAnswers(lab, GUEST, (reason) => /no file system/.test(reason ?? ''));
  const nothing = await lab.client.createSaveImage(GUEST, { name: 'a', live: true, quiesce: true });
  assert.equal(nothing.quiesce, 'failed');
  assert.match(nothing.quiesceReason ?? '', /no file system that can be frozen/);
  const [operation] = await lab.client.listOperations();
  assert.match(operation?.warnings.join('\n') ?? '', /were not frozen: the guest has no file system/);
  await assert.rejects(lab.client.createSaveImage(GUEST, { name: 'b', live: true, quiesce: 'require' }), {
    code: 'quiesce-failed',
  });
  assert.equal((await lab.client.getGuest(GUEST)).state, 'running');

  await using other = await lab.running('web2', { disks: 1 });
  await other.close();
  const skipped = await lab.client.createSaveImage('web2', { name: 'a', live: true, quiesce: true });
  assert.deepEqual(
    [skipped.quiesce, skipped.quiesceReason],
    ['skipped', 'the guest was defined without an agent'],
  );
  await assert.rejects(lab.client.createSaveImage('web2', { name: 'b', quiesce: 'require' }), {
    code: 'quiesce-failed',
    message: /defined without an agent/,
  });
});

/** Whether the file system in an image was in use, by its own superblock. */
async function needsRecovery(lab: Lab, image: string): Promise<boolean> {
  const { disks } = await lab.client.getSaveImageInfo(GUEST, image);
  const layer = disks.find(({ name }) => name === 'files')?.layer ?? '';
  const directory = await mkdtemp(join(tmpdir(), 'stasis-ext4-'));
  try {
    const flat = join(directory, 'disk');
    await run('qemu-img', ['convert', '-U', '-O', 'raw', layer, flat]);
    const { stdout } = await run('/sbin/dumpe2fs', ['-h', flat]);
    const needs = /^Filesystem features:.*\bneeds_recovery\b/m.test(stdout);
    if (!needs) await run('/sbin/e2fsck', ['-f', '-n', flat]);
    return needs;
  } finally {
    await rm(directory, { recursive: true });
  }
}

/** How the thaw of the latest operation of a kind went. */
async function thawOf(lab: Lab, kind: string): Promise<string> {
  const operation = (await lab.client.listOperations()).find((candidate) => candidate.kind === kind);
  const thaw = operation?.outcomes.find(({ name }) => name === 'thaw');
  return `${thaw?.outcome}: ${thaw?.message}`;
}
