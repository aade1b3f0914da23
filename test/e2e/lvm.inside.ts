import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { open, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { StasisError } from '../../src/errors.ts';
import { listVolumes } from '../../src/storage/lvm-volumes.ts';
import { Lab } from '../support/lab.ts';

// Run by lvm.test.ts inside the guest with LVM.

const GROUP = 'guests';
const GUEST = 'web1';
const AT = 16 * 1024 ** 2;
/** Emulated, a snapshot takes a while: without a limit of its own the disks would get overlays. */
const MAX_PAUSE_MS = 60_000;
const DISKS = [
  { name: 'thin', path: `/dev/${GROUP}/web1-thin`, format: 'raw' },
  { name: 'plain', path: `/dev/${GROUP}/web1-plain`, format: 'raw', snapshotSize: '16MiB' },
] as const;
const USERS = ['pool', 'web1-plain', 'web1-thin'];

const call = (tool: string, ...args: string[]) =>
  execFileSync(tool, args, { encoding: 'utf8', stdio: 'pipe' });
/** All volumes: the user's by their names, ours by `head`, `copy` or `snap`. */
const volumes = async () =>
  (await listVolumes(GROUP)).map(({ name }) => /^stasis-([a-z]+)-/.exec(name)?.[1] ?? name).toSorted();

let lab: Lab;

before(async () => {
  call('vgcreate', '-qq', GROUP, '/dev/vdc', '/dev/vdd');
  call('lvcreate', '-qq', '-L', '512M', '-T', `${GROUP}/pool`);
  call('lvcreate', '-qq', '-V', '64M', '-n', 'web1-thin', '-T', `${GROUP}/pool`);
  call('lvcreate', '-qq', '-y', '-L', '64M', '-n', 'web1-plain', GROUP);
  lab = await Lab.create();
  await lab.client.defineGuest({
    ...{ name: GUEST, memory: '32MiB', accelerator: 'tcg', cpu: 'qemu64', serial: false, disks: DISKS },
  });
  await lab.client.start(GUEST);
});

after(async () => {
  await lab[Symbol.asyncDispose]();
  call('vgremove', '-qq', '-y', GROUP);
});

async function headOf(disk: string): Promise<string> {
  const { disks } = await lab.client.getGuest(GUEST);
  return disks.find(({ name }) => name === disk)?.head ?? '';
}

/** In the place of the guest, which has all its disks' devices open. */
async function write(disk: string, word: string, bytes = 4096): Promise<void> {
  await using file = await open(await headOf(disk), 'r+');
  await file.write(Buffer.alloc(bytes, word), 0, bytes, AT);
  await file.sync();
}

/** Also through an overlay. qemu-img counts the blocks that it skips. */
async function read(disk: string): Promise<string> {
  const head = await headOf(disk);
  const copy = join(lab.home, 'block');
  const format = head.endsWith('.qcow2') ? 'qcow2' : 'raw';
  const blocks = ['bs=4096', `skip=${AT / 4096}`, `count=${AT / 4096 + 1}`];
  call('qemu-img', 'dd', '-U', '-f', format, '-O', 'raw', ...blocks, `if=${head}`, `of=${copy}`);
  const [word = ''] = (await readFile(copy, 'latin1')).split('|');
  return word;
}

const save = (name: string) =>
  lab.client.createSaveImage(GUEST, { name, live: true, maxPauseMs: MAX_PAUSE_MS });

test('volumes get their driver by themselves', async () => {
  const { disks } = await lab.client.getGuest(GUEST);
  assert.deepEqual(
    disks.map(({ driver }) => driver),
    ['lvm', 'lvm'],
  );
});

test('a live save takes snapshots', async (t) => {
  await save('a');
  assert.deepEqual(await volumes(), ['copy', ...USERS, 'snap'].toSorted());
  const [image] = await lab.client.listSaveImages(GUEST);
  t.diagnostic(
    `figure: pause with snapshots of two volumes, emulated: ${Math.round(image?.pauseMs ?? 0)} ms`,
  );
});

test('an image whose snapshot overflowed is broken, and not restored', async () => {
  await write('plain', 'x', 24 * 1024 ** 2);
  await assert.rejects(
    lab.client.restoreSaveImage(GUEST, 'a'),
    (error: unknown) =>
      error instanceof StasisError && error.code === 'disk-changed' && /too small/.test(error.message),
  );
  assert.deepEqual(
    (await lab.client.listSaveImages(GUEST)).map(({ name, state }) => [name, state]),
    [['a', 'broken']],
  );
  assert.equal((await lab.client.getGuest(GUEST)).state, 'running');
  await lab.client.deleteSaveImage(GUEST, 'a');
  assert.deepEqual(await volumes(), USERS);
});

test('a daemon that dies in a save leaves no volume behind', async () => {
  await lab.endDaemon('SIGTERM');
  await lab.startDaemon({ STASIS_FAILPOINT: 'save/capture:after=kill' });
  await assert.rejects(save('lost'));
  await lab.daemonEnded();
  assert.deepEqual(await volumes(), ['copy', ...USERS, 'snap'].toSorted());
  await lab.startDaemon();
  assert.deepEqual(await lab.client.listSaveImages(GUEST), []);
  assert.deepEqual(await volumes(), USERS);
});

test('each image is restored as it was: a thin disk from a snapshot, a plain one from an overlay', async () => {
  for (const disk of ['thin', 'plain']) await write(disk, 'b|');
  await save('b');
  for (const disk of ['thin', 'plain']) await write(disk, 'later|');
  await lab.client.restoreSaveImage(GUEST, 'b');
  assert.deepEqual([await read('thin'), await read('plain')], ['b', 'b']);
  assert.deepEqual(await volumes(), ['copy', 'head', ...USERS, 'snap'].toSorted());
  await write('thin', 'c|');
  await save('c');
  await write('thin', 'last|');
  await lab.client.restoreSaveImage(GUEST, 'b');
  assert.equal(await read('thin'), 'b');
  await lab.client.restoreSaveImage(GUEST, 'c');
  assert.equal(await read('thin'), 'c');
});

test('in the end the volumes of the user hold what was written, and no other is left', async () => {
  await write('thin', 'final|');
  await lab.client.stop(GUEST);
  await lab.client.undefineGuest(GUEST, { deleteImages: true });
  assert.deepEqual(await volumes(), USERS);
  const words = [];
  for (const { path } of DISKS) {
    await using file = await open(path, 'r');
    const { buffer } = await file.read(Buffer.alloc(8), 0, 8, AT);
    words.push(buffer.toString('latin1').split('|')[0]);
  }
  assert.deepEqual(words, ['final', 'b']);
});
