/** What can't be done is refused before anything is touched, with an error that says what, whose and what to do. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { appendFile, mkdtemp, rm, statfs, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import { StasisError } from '../../src/errors.ts';
import { Lab, testBoot } from '../support/lab.ts';
import { checkHousekeeping, contentOf } from '../support/rules.ts';

const run = promisify(execFile);
const GUEST = 'web1';

describe('with one guest that runs', () => {
  let lab: Lab;
  before(async () => {
    lab = await Lab.create();
    await (await lab.running(GUEST)).close();
  });
  after(() => lab[Symbol.asyncDispose]());

  test('names of images are never paths', async () => {
    for (const name of [
      '../escape',
      '/etc/passwd',
      'a/b',
      '..',
      '.hidden',
      '',
      'x'.repeat(65),
      'a b',
      'ä',
      'a\nb',
      'a\0b',
    ]) {
      await assert.rejects(
        lab.client.createSaveImage(GUEST, { name, live: true }),
        { code: 'invalid-name' },
        JSON.stringify(name),
      );
    }
    for (const name of ['../escape', '..%2f..%2fetc', '%00']) {
      await assert.rejects(lab.client.getSaveImageInfo(GUEST, name), { code: 'image-not-found' });
      await assert.rejects(lab.client.deleteSaveImage(GUEST, name), { code: 'image-not-found' });
      await assert.rejects(lab.client.restoreSaveImage(GUEST, name), { code: 'image-not-found' });
    }
    assert.deepEqual(await lab.files(), []);
  });

  test('an image is not overwritten, and an unknown one is told as that', async () => {
    await lab.client.createSaveImage(GUEST, { name: 'once', live: true });
    await assert.rejects(lab.client.createSaveImage(GUEST, { name: 'once', live: true }), {
      code: 'image-exists',
      guest: GUEST,
    });
    await lab.client.deleteSaveImage(GUEST, 'once');
    await assert.rejects(lab.client.getSaveImageInfo(GUEST, 'once'), {
      code: 'image-not-found',
      image: 'once',
    });
    await assert.rejects(lab.client.getGuest('nobody'), { code: 'guest-not-found', guest: 'nobody' });
  });

  test('two clients save the same guest at once: one does, the other is told that the guest is busy', async () => {
    const outcomes = await Promise.allSettled(
      ['one', 'two'].map((name) => lab.client.createSaveImage(GUEST, { name, live: true })),
    );
    const refused = outcomes.filter((outcome) => outcome.status === 'rejected');
    assert.equal(refused.length, 1);
    assert.equal(refused[0]?.reason.code, 'busy');
    const [image] = await lab.client.listSaveImages(GUEST);
    await lab.client.deleteSaveImage(GUEST, image?.name);
    await checkHousekeeping(lab, GUEST);
  });

  test('a save is cancelled and leaves nothing', async () => {
    const witness = await lab.witness(GUEST);
    await witness.fill(1, 32);
    await witness.dirty(100);
    const cancelled = async () => {
      const operation = await lab.client.createSaveImage(
        GUEST,
        { name: 'never', live: true },
        { wait: false },
      );
      const isTooLate = await lab.client.cancelOperation(operation.id).then(
        () => false,
        (error: unknown) => StasisError.from(error).code === 'invalid-state',
      );
      const ended = await lab.client.followOperation(operation.id);
      if (!isTooLate) return ended;
      await lab.client.deleteSaveImage(GUEST, 'never');
      return undefined;
    };
    let ended = await cancelled();
    while (ended === undefined) ended = await cancelled();
    assert.equal(ended.state, 'cancelled');
    assert.equal(ended.error?.code, 'cancelled');
    await witness.dirty(0);
    assert.equal((await witness.checksum()).errors, 0);
    await witness.close();
    await checkHousekeeping(lab, GUEST);
    assert.deepEqual(await lab.files(), []);
  });

  test('a guest that runs is neither started nor undefined, a stopped one neither saved nor paused', async () => {
    await assert.rejects(lab.client.start(GUEST), { code: 'invalid-state' });
    await assert.rejects(lab.client.undefineGuest(GUEST), { code: 'invalid-state' });
    await lab.define('still', { disks: 1 });
    await assert.rejects(lab.client.createSaveImage('still'), { code: 'invalid-state', guest: 'still' });
    await assert.rejects(lab.client.pause('still'), { code: 'invalid-state' });
  });

  test('a disk belongs to one guest', async () => {
    const disks = [{ name: 'mine', path: join(lab.home, `${GUEST}-0.qcow2`), format: 'qcow2' }];
    await assert.rejects(
      lab.client.defineGuest({ name: 'thief', memory: '64MiB', accelerator: 'tcg', disks }),
      { code: 'disk-in-use' },
    );
  });

  test('a definition is read strictly', async () => {
    const define = (definition: unknown) => lab.client.defineGuest(definition);
    await assert.rejects(define({ name: 'x', memory: '1GiB', memmory: 2 }), {
      code: 'invalid-definition',
      message: /"memmory"; did you mean "memory"/,
    });
    await assert.rejects(
      define({
        name: 'x',
        memory: '1GiB',
        disks: [{ name: 'a', path: '/x', format: 'qcow2', buss: 'virtio' }],
      }),
      { message: /disks\.0.*"buss"; did you mean "bus"/ },
    );
    await assert.rejects(define({ name: 'x', memmory: '1GiB' }), {
      message: /"memmory"; did you mean "memory"/,
    });
    await assert.rejects(define({ memory: '1GiB' }), { message: /"name" is missing/ });
    await assert.rejects(define({ name: 'x', memory: 'lots' }), { message: /"lots" is not a size/ });
    await assert.rejects(define({ name: '../x', memory: '1GiB' }), { code: 'invalid-definition' });
    await assert.rejects(define({ name: 'x', memory: '1GiB', machine: 'pc-q35-99.9' }), {
      message: /pc-q35-99\.9/,
    });
    await assert.rejects(
      define({ name: 'x', memory: '1GiB', disks: [{ name: 'a', path: '/nowhere', format: 'raw' }] }),
      { code: 'disk-missing', message: /\/nowhere does not exist/ },
    );
    await assert.rejects(define([]), { code: 'invalid-definition' });
    await assert.rejects(define({ name: GUEST, memory: '1GiB' }), { code: 'guest-exists' });
  });
});

const UNCAPTURABLE = [
  {
    name: 'a device that QEMU can not migrate',
    args: [
      '-object',
      'memory-backend-ram,id=shared,size=1M,share=on',
      '-device',
      'ivshmem-plain,memdev=shared',
    ],
    reason: /ivshmem/,
  },
  {
    name: 'a writable disk that the definition does not know',
    args: [
      '-drive',
      'driver=null-co,size=1M,if=none,id=stowaway',
      '-device',
      'virtio-blk-pci,drive=stowaway,addr=0x1e',
    ],
    reason: /null-co.* is writable and not part of the save/,
  },
];
for (const { name, args, reason } of UNCAPTURABLE) {
  test(`${name} is refused by its name, and the guest not touched`, async () => {
    await using lab = await Lab.create();
    await (await lab.running(GUEST, { extra: { qemu: { args } } })).close();
    await assert.rejects(lab.client.createSaveImage(GUEST, { live: true }), {
      code: 'not-capturable',
      message: reason,
      guest: GUEST,
    });
    assert.deepEqual(await lab.files(), []);
    assert.equal((await lab.client.getGuest(GUEST)).state, 'running');
    await contentOf(lab, GUEST);
  });
}

test('a writable disk whose format carries no overlay is refused by its name', async () => {
  await using lab = await Lab.create();
  const path = join(lab.home, 'other.vmdk');
  await run('qemu-img', ['create', '-q', '-f', 'vmdk', path, '16M']);
  await lab.client.defineGuest({
    name: GUEST,
    memory: '128MiB',
    accelerator: 'tcg',
    boot: testBoot(),
    disks: [{ name: 'foreign', path, format: 'vmdk' }],
  });
  await lab.client.start(GUEST);
  await assert.rejects(lab.client.createSaveImage(GUEST, { live: true }), {
    code: 'not-capturable',
    message: /disk foreign .*vmdk/,
  });
});

test('a layer that somebody else changed is noticed before a guest or an image uses it', async () => {
  await using lab = await Lab.create();
  await (await lab.running(GUEST, { format: 'raw', disks: 1 })).close();
  await lab.client.createSaveImage(GUEST);
  await appendFile(join(lab.home, `${GUEST}-0.raw`), 'x');
  await assert.rejects(lab.client.start(GUEST), {
    code: 'disk-changed',
    message: /web1-0\.raw \(its size changed\)/,
  });
  await assert.rejects(lab.client.restoreSaveImage(GUEST), { code: 'disk-changed' });
  await assert.rejects(lab.client.start(GUEST, { fresh: true }), { code: 'disk-changed' });
});

test('a memory file that was damaged is refused, and the guest runs on', async () => {
  await using lab = await Lab.create();
  await (await lab.running(GUEST, { disks: 1 })).close();
  const { memoryFile } = await lab.client.createSaveImage(GUEST, { name: 'damaged', live: true });
  await writeFile(memoryFile, 'not a memory file');
  await assert.rejects(lab.client.restoreSaveImage(GUEST, 'damaged'), { code: 'image-damaged' });
  assert.equal((await lab.client.getGuest(GUEST)).state, 'running');
  await contentOf(lab, GUEST);
  await checkHousekeeping(lab, GUEST);
});

test(
  'a disk that fills up during a save: the guest is unharmed, the image gone, the error clear',
  { skip: process.getuid?.() !== 0 && 'mounting needs root' },
  async () => {
    const mount = await mkdtemp(join(tmpdir(), 'stasis-small-'));
    await run('mount', ['-t', 'tmpfs', '-o', 'size=400M', 'tmpfs', mount]);
    try {
      await using lab = await Lab.create(mount);
      const witness = await lab.running(GUEST, { memory: '256MiB' });
      await witness.fill(1, 128);
      const { checksum } = await witness.checksum();
      await witness.close();
      // Enough is free when the save is planned, and not when it is written.
      await lab.failAt('save/capture:before=halt');
      const save = lab.client.createSaveImage(GUEST, { name: 'big', live: true });
      await lab.daemonHalted();
      const { bavail, bsize } = await statfs(mount);
      await run('fallocate', ['-l', String(bavail * bsize - 20 * 1024 ** 2), join(mount, 'ballast')]);
      process.kill(lab.daemonPid, 'SIGCONT');
      await assert.rejects(save, { code: 'no-space', guest: GUEST });
      await rm(join(mount, 'ballast'), { force: true });

      assert.deepEqual(await lab.client.listSaveImages(GUEST), []);
      assert.deepEqual(
        (await lab.files()).filter((file) => file.includes('/images/')),
        [],
      );
      assert.equal((await contentOf(lab, GUEST)).memory, checksum);
      await checkHousekeeping(lab, GUEST);
    } finally {
      await run('umount', [mount]);
      await rm(mount, { recursive: true, force: true });
    }
  },
);
