/** An image is tried out: it comes to life with evidence, or what kept it from that is told; and nothing of the trial stays. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { open, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';
import type { Image } from '../../src/client/index.ts';
import { fromStored } from '../../src/stored.ts';
import { Lab } from '../support/lab.ts';
import { changeContent, contentOf } from '../support/rules.ts';

const GUEST = 'web1';
const run = promisify(execFile);

let lab: Lab;
before(async () => {
  lab = await Lab.create();
  // A UEFI guest would have a third disk, a TPM a directory: both are scratch as a clone's are.
  await using witness = await lab.running(GUEST, {
    cmdline: 'agent',
    extra: { agent: true, networks: [{ type: 'user' }], graphics: 'vnc' },
  });
  await witness.fill(1, 8);
  await changeContent(lab, GUEST, 1);
  await lab.client.createSaveImage(GUEST, { name: 'a', live: true });
});
after(() => lab[Symbol.asyncDispose]());

test('an image comes to life, by its agent, by what its console prints and by signs of life', async () => {
  const present = await changeContent(lab, GUEST, 2);
  const told = await lab.cli(['verify', GUEST, 'a', '--boot', '--json']);
  assert.equal(told.status, 0, told.stderr);
  const image = fromStored<Image & { parts: { name: string; message: string }[] }>(told.stdout);
  assert.equal(image.verified.bootAt, image.verifiedAt);
  assert.match(image.verified.evidence.join(), /guest agent answered after \d+ ms.*ran .* without an end/);
  assert.match(
    image.parts.find(({ name }) => name === 'boot')?.message ?? '',
    /restored mapped .* without a network/,
  );
  assert.match((await lab.cli(['info', GUEST, 'a'])).stdout, /restored fine at .*agent answered/);
  await nothingStays();
  assert.deepEqual(await contentOf(lab, GUEST), present, 'the guest itself has noticed nothing');
});

test('a disk of another instant than the memory is noticed by the guest, and its words are the evidence', async () => {
  await changeContent(lab, GUEST, 3);
  await lab.client.createSaveImage(GUEST, { name: 'b', live: true });
  const { disks } = await lab.client.getSaveImageInfo(GUEST, 'b');
  // Looked at from outside all is well: the file looks as it did, and nobody has summed it yet.
  await keepingLooks(disks[0]?.layer ?? '', wipeCounter);
  const trial = lab.client.verifySaveImage(GUEST, 'b', {
    boot: true,
    expect: '^never$',
    reject: '^@mismatch',
    timeLimitSeconds: 300,
  });
  await assert.rejects(trial, {
    code: 'image-damaged',
    message: /did not come to life.*@mismatch .*"onDisk":0/s,
  });
  const image = await lab.client.getSaveImageInfo(GUEST, 'b');
  assert.deepEqual([image.state, image.verifiedAt], ['ready', null]);
  assert.match(image.damage ?? '', /^boot: /);
  await nothingStays();
  await lab.client.deleteSaveImage(GUEST, 'b');
});

test('a daemon that is killed in the middle of a trial, or a step that fails, leaves nothing of it', async (context) => {
  const steps = ['lay-scratch', 'load', 'live', 'discard', 'commit'];
  const all = process.env['STASIS_FAULTS'] === 'all';
  const points = all
    ? steps.flatMap((step) =>
        ['before', 'after'].flatMap((side) => [`${step}:${side}=kill`, `${step}:${side}=error`]),
      )
    : ['load:after=kill', 'live:before=kill', 'discard:before=kill', 'live:after=error'];
  for (const point of points)
    await context.test(point, async () => {
      await lab.failAt(`verify/${point}`);
      const trial = lab.client.verifySaveImage(GUEST, 'a', { boot: true }).then(
        () => 'done',
        () => 'failed',
      );
      if (point.endsWith('kill')) {
        await lab.daemonEnded();
        await lab.failAt();
        await lab.startDaemon();
      }
      await trial;
      await lab.failAt();
      await nothingStays();
      assert.equal((await lab.client.getSaveImageInfo(GUEST, 'a')).state, 'ready');
    });
});

/** One guest, one QEMU, no file that is not the guest's. */
async function nothingStays(): Promise<void> {
  assert.equal((await lab.client.listGuests()).length, 1);
  assert.equal((await lab.qemuProcesses()).length, 1);
  const { uuid } = await lab.client.getGuest(GUEST);
  assert.deepEqual(await readdir(join(lab.paths.data, 'guests')), [uuid]);
  assert.equal((await readdir(join(lab.paths.run, 'guests'))).length, 1);
}

async function keepingLooks(path: string, change: (path: string) => Promise<void>): Promise<void> {
  const looks = join(lab.home, 'looks');
  await run('touch', ['-r', path, looks]);
  await change(path);
  await run('touch', ['-r', looks, path]);
}

/** What the witness keeps on its disk from 1 MiB on: without its mark it is no counter. */
async function wipeCounter(path: string): Promise<void> {
  const { stdout } = await run('qemu-img', ['map', '-U', '--output=json', path]);
  const parts = fromStored<{ start: number; length: number; depth: number; offset?: number }[]>(stdout);
  const at = 1 << 20;
  const part = parts.find(({ start, length, depth }) => depth === 0 && start <= at && at < start + length);
  assert.ok(part?.offset !== undefined, 'the counter is in this layer');
  await using file = await open(path, 'r+');
  await file.write(Buffer.alloc(512, 0xee), 0, 512, part.offset + at - part.start);
}
