import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { after, before, test } from 'node:test';
import { StasisError } from '../../src/errors.ts';
import { listVolumes } from '../../src/storage/lvm-volumes.ts';
import { Lab, testBoot } from '../support/lab.ts';
import { changeContent, contentOf, type Content } from '../support/rules.ts';

// Run by lvm.test.ts inside the guest with LVM: a guest that writes to a thin and a plain volume, and witnesses what it finds.

const GROUP = 'guests';
const GUEST = 'web1';
const BOOT_MS = 600_000;
/** Emulated twice, a snapshot takes a while; without a limit of its own the disks would get overlays. */
const MAX_PAUSE_MS = 60_000;
const DISKS = [
  { name: 'thin', path: `/dev/${GROUP}/web1-thin`, format: 'raw' },
  { name: 'plain', path: `/dev/${GROUP}/web1-plain`, format: 'raw', snapshotSize: '16MiB' },
] as const;

const call = (tool: string, ...args: string[]) =>
  execFileSync(tool, args, { encoding: 'utf8', stdio: 'pipe' });
/** All volumes by role: the user's by their names, ours by `head`, `copy` or `snap`. */
const volumes = async () =>
  (await listVolumes(GROUP)).map(({ name }) => /^stasis-([a-z]+)-/.exec(name)?.[1] ?? name).toSorted();
const USERS = ['pool', 'web1-plain', 'web1-thin'];

let lab: Lab;
const expected = new Map<string, Content>();

before(async () => {
  call('vgcreate', '-qq', GROUP, '/dev/vdc', '/dev/vdd');
  call('lvcreate', '-qq', '-L', '512M', '-T', `${GROUP}/pool`);
  call('lvcreate', '-qq', '-V', '64M', '-n', 'web1-thin', '-T', `${GROUP}/pool`);
  call('lvcreate', '-qq', '-y', '-L', '64M', '-n', 'web1-plain', GROUP);
  lab = await Lab.create();
  await lab.client.defineGuest({
    ...{ name: GUEST, memory: '96MiB', accelerator: 'tcg', cpu: 'qemu64', disks: DISKS },
    boot: testBoot('fill=5:4 interval=200'),
  });
});

after(async () => {
  await lab[Symbol.asyncDispose]();
  call('vgremove', '-qq', '-y', GROUP);
});

async function change(seed: number): Promise<Content> {
  return changeContent(lab, GUEST, seed);
}

async function save(name: string): Promise<void> {
  expected.set(name, await change(expected.size + 10));
  await lab.client.createSaveImage(GUEST, { name, live: true, maxPauseMs: MAX_PAUSE_MS });
}

async function restoreAndCheck(name: string): Promise<void> {
  await lab.client.restoreSaveImage(GUEST, name);
  assert.deepEqual(await contentOf(lab, GUEST), expected.get(name), `${name} holds what it was`);
}

test('the driver of volumes is chosen by itself, and the guest boots', async (t) => {
  const { disks } = await lab.client.getGuest(GUEST);
  assert.deepEqual(
    disks.map(({ driver }) => driver),
    ['lvm', 'lvm'],
  );
  const startMs = performance.now();
  await lab.client.start(GUEST);
  await using witness = await lab.witness(GUEST, BOOT_MS);
  t.diagnostic(`figure: boot of a guest in a guest: ${Math.round((performance.now() - startMs) / 1000)} s`);
  assert.equal((await witness.status()).mismatches, 0);
});

test('it is saved live while it writes', async (t) => {
  await save('a');
  assert.deepEqual(await volumes(), ['copy', ...USERS, 'snap'].toSorted());
  const [image] = await lab.client.listSaveImages(GUEST);
  t.diagnostic(`figure: pause with two volumes in a guest in a guest: ${Math.round(image?.pauseMs ?? 0)} ms`);
});

test('an image whose snapshot overflowed is broken, and not restored', async () => {
  {
    await using witness = await lab.witness(GUEST);
    await witness.write('vdb', 32, 24, 7);
  }
  const present = await contentOf(lab, GUEST);
  await assert.rejects(
    lab.client.restoreSaveImage(GUEST, 'a'),
    (error: unknown) =>
      error instanceof StasisError &&
      error.code === 'disk-changed' &&
      /overflow|too small/.test(error.message),
  );
  assert.deepEqual(
    (await lab.client.listSaveImages(GUEST)).map(({ name, state }) => [name, state]),
    [['a', 'broken']],
  );
  assert.deepEqual(await contentOf(lab, GUEST), present, 'the guest noticed nothing');
  await lab.client.deleteSaveImage(GUEST, 'a');
  assert.deepEqual(await volumes(), USERS);
});

test('a daemon that dies in a save leaves no volume behind', async () => {
  await lab.endDaemon('SIGTERM');
  await lab.startDaemon({ STASIS_FAILPOINT: 'save/capture:after=kill' });
  const present = await change(50);
  await assert.rejects(
    lab.client.createSaveImage(GUEST, { name: 'lost', live: true, maxPauseMs: MAX_PAUSE_MS }),
  );
  await lab.daemonEnded();
  await lab.startDaemon();
  assert.deepEqual(await lab.client.listSaveImages(GUEST), []);
  assert.deepEqual(await contentOf(lab, GUEST), present);
  assert.deepEqual(await volumes(), USERS);
});

test('it is restored, again and again, memory and disks of one instant', async () => {
  await save('b');
  await change(60);
  await restoreAndCheck('b');
  assert.deepEqual(await volumes(), ['copy', 'head', ...USERS, 'snap'].toSorted());
  await save('c');
  await change(61);
  await restoreAndCheck('b');
  await restoreAndCheck('c');
});

test('in the end the volumes of the user hold what it wrote, and no other is left', async () => {
  const final = await change(70);
  await lab.client.stop(GUEST);
  await lab.client.undefineGuest(GUEST, { deleteImages: true });
  assert.deepEqual(await volumes(), USERS);
  await lab.client.defineGuest({
    ...{ name: 'again', memory: '96MiB', accelerator: 'tcg', cpu: 'qemu64', boot: testBoot(), disks: DISKS },
  });
  await lab.client.start('again');
  await using witness = await lab.witness('again', BOOT_MS);
  assert.equal((await witness.read('vda', 16, 2)).checksum, final.disk);
});
