/** QEMU as a user without rights, under a daemon that is root: what it can't do any more, and that guests don't notice. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import {
  chmod,
  chown,
  copyFile,
  mkdir,
  mkdtemp,
  readFile,
  readdir,
  rm,
  stat,
  writeFile,
} from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { runAs } from '../../src/qemu/process/user.ts';
import type { TestDisk } from '../support/grounds.ts';
import { Lab, testBoot } from '../support/lab.ts';
import { changeContent, checkHousekeeping, contentOf } from '../support/rules.ts';

const run = promisify(execFile);
const GUEST = 'web1';
/** Nobody's number. */
const USER = { name: null, uid: 64_321, gid: 64_321 };
const OWNER = { uid: 64_400, gid: 64_401, mode: 0o660 };
const CLOSED = { data: 0o700, run: 0o700, cache: 0o700, socket: 0o600, catalog: 0o600, log: 0o600 };
const skip = process.getuid?.() === 0 ? false : 'only root can choose whom QEMU runs as';

test(
  'QEMU has no rights, and its guest is saved, restored, cloned, merged and given back all the same',
  { skip },
  async () => {
    await using lab = await unprivilegedLab();
    const kernel = join(lab.home, 'vmlinuz');
    await copyFile(testBoot().kernel, kernel);
    await chmod(kernel, 0o600); // as some distributions have it
    const disks = [{ name: 'disk0', ...(await brought(lab)) }];
    await lab.defineOn(GUEST, disks, { extra: { boot: { ...testBoot(), kernel }, graphics: 'vnc' } });
    await lab.client.start(GUEST);
    {
      await using witness = await lab.witness(GUEST);
      await witness.fill(1, 8);
    }
    await checkRights(lab, GUEST);

    const before = await changeContent(lab, GUEST, 1);
    const { screenFile } = await lab.client.createSaveImage(GUEST, { name: 'a', live: true });
    assert.ok(screenFile !== null, 'it has a picture');
    await checkReach(lab, join(lab.home, 'brought.qcow2'));
    await changeContent(lab, GUEST, 2);
    for (const method of ['mapped', 'lazy', 'eager'] as const) {
      await lab.client.restoreSaveImage(GUEST, 'a', { method });
      assert.deepEqual(await contentOf(lab, GUEST), before, method);
      await checkRights(lab, GUEST);
    }
    await lab.client.createSaveImage(GUEST, { name: 'b', live: true, method: 'background' });
    await lab.client.createSaveImage(GUEST); // stops it
    await lab.client.start(GUEST);
    await lab.client.restoreSaveImage(GUEST, 'b', { asNewGuest: 'clone' });
    assert.deepEqual(await contentOf(lab, 'clone'), before);
    await checkRights(lab, 'clone');

    await lab.client.stop('clone');
    await lab.client.undefineGuest('clone');
    for (const name of ['a', 'b']) await lab.client.deleteSaveImage(GUEST, name);
    await checkHousekeeping(lab, GUEST);
    assert.deepEqual(await contentOf(lab, GUEST), before, 'merging while it ran changed nothing');
    await lab.client.stop(GUEST);
    await lab.client.undefineGuest(GUEST);
    for (const { path } of disks) assert.deepEqual(await ownerOf(path), OWNER);
    assert.deepEqual(await ownerOf(kernel), { uid: 0, gid: 0, mode: 0o600 });
  },
);

test(
  'what is for root only, neither a hostile disk image nor a QEMU that was taken over gets at',
  { skip },
  async () => {
    await using lab = await unprivilegedLab();
    const modes = await modesOf(lab);
    assert.deepEqual(
      modes,
      { ...CLOSED, data: 0o710, run: 0o710 },
      'its group may go through, nobody may look',
    );
    // The image says that it stands on such a file.
    const secret = join(lab.home, 'secret');
    await writeFile(secret, 'x'.repeat(1 << 20), { mode: 0o600 });
    const path = join(lab.home, 'hostile.qcow2');
    await run('qemu-img', ['create', '-q', '-u', '-f', 'qcow2', '-b', secret, '-F', 'raw', path, '1M']);
    await lab.defineOn('hostile', [{ name: 'disk0', path, format: 'qcow2', driver: 'overlay' }], {
      system: 'bare',
    });
    await assert.rejects(lab.client.start('hostile'), {
      code: 'qemu-failed',
      message: /secret.*Permission denied.*runs as user 64321.*chmod o\+x.*qemu\.user/,
    });
    assert.deepEqual(await ownerOf(secret), { uid: 0, gid: 0, mode: 0o600 });

    // In the place of its console QEMU puts a link to a socket that it may not open itself.
    const disk = { name: 'disk0', ...(await lab.makeDisk('disk', 1, 'raw')) };
    await lab.defineOn(GUEST, [disk], { system: 'bare' });
    await lab.client.start(GUEST);
    let visitors = 0;
    const target = join(lab.home, 'other.sock');
    await using _ = createServer(() => (visitors += 1)).listen(target);
    const [instance = ''] = await readdir(join(lab.paths.run, 'guests'));
    const console = join(lab.paths.run, 'guests', instance, 'serial.sock');
    await asQemu('rm', console);
    await asQemu('ln', '-s', target, console);
    await assert.rejects(lab.client.openConsole(GUEST));
    assert.equal(visitors, 0);
  },
);

const hasUser = process.env['STASIS_TEST_QEMU_USER'] !== undefined;

test(
  'a home is closed to everybody else',
  { skip: hasUser && 'its QEMU has a user of its own' },
  async () => {
    await using lab = await Lab.create();
    assert.deepEqual(await modesOf(lab), CLOSED);
  },
);

test('a user who is not there, and a daemon that may not choose, are told', { skip }, async () => {
  await assert.rejects(
    unprivilegedLab('no-such-user'),
    /qemu\.user: there is no user no-such-user; .*useradd/,
  );
});

/** @param user of `qemu.user` in the settings */
async function unprivilegedLab(user = String(USER.uid)): Promise<Lab> {
  const home = await mkdtemp(join(tmpdir(), 'stasis-'));
  await mkdir(join(home, 'config'));
  await writeFile(join(home, 'config/stasis.yaml'), `qemu: {user: ${user}}\n`);
  try {
    return await Lab.open(home);
  } catch (error) {
    await rm(home, { recursive: true });
    throw error;
  }
}

async function brought(lab: Lab): Promise<TestDisk> {
  const disk = await lab.makeDisk('brought', 64);
  await chown(disk.path, OWNER.uid, OWNER.gid);
  await chmod(disk.path, OWNER.mode);
  return disk;
}

async function modesOf({ paths }: Lab): Promise<Record<keyof typeof CLOSED, number>> {
  const modeOf = async (path: string) => (await stat(path)).mode & 0o7777;
  return {
    ...{ data: await modeOf(paths.data), run: await modeOf(paths.run), cache: await modeOf(paths.cache) },
    socket: await modeOf(paths.socket),
    catalog: await modeOf(join(paths.data, 'catalog.sqlite')),
    log: await modeOf(join(paths.data, 'catalog.sqlite-wal')),
  };
}

async function ownerOf(path: string): Promise<{ uid: number; gid: number; mode: number }> {
  const { uid, gid, mode } = await stat(path);
  return { uid, gid, mode: mode & 0o7777 };
}

/** What the kernel says of the process: proc_pid_status(5). */
async function checkRights(lab: Lab, guest: string): Promise<void> {
  const { pid } = await lab.client.getGuest(guest);
  for (const thread of await readdir(`/proc/${pid}/task`)) {
    const status = await readFile(`/proc/${pid}/task/${thread}/status`, 'utf8').catch(() => undefined);
    if (status === undefined) continue; // it has ended
    const said = (key: string) => new RegExp(`^${key}:[ \\t]*(.*?)[ \\t]*$`, 'm').exec(status)?.[1];
    for (const key of ['Uid', 'Gid']) assert.equal(said(key), Array(4).fill('64321').join('\t'));
    assert.equal(said('Groups'), '');
    for (const set of ['Inh', 'Prm', 'Eff', 'Bnd', 'Amb']) assert.match(said(`Cap${set}`) ?? '', /^0+$/, set);
    assert.equal(said('NoNewPrivs'), '1');
    assert.equal(said('Seccomp'), '2');
  }
}

/** What somebody who is QEMU's user doesn't get at. @param pinned what an image holds of a disk */
async function checkReach({ paths }: Lab, pinned: string): Promise<void> {
  const guests = join(paths.data, 'guests');
  const [guest = ''] = await readdir(guests);
  const [image = ''] = await readdir(join(guests, guest, 'images'));
  const memory = join(guests, guest, 'images', image, 'memory');
  const [instance = ''] = await readdir(join(paths.run, 'guests'));
  const log = join(paths.run, 'guests', instance, 'qemu.log');
  for (const command of [
    ['cat', join(paths.data, 'catalog.sqlite')],
    ['ls', paths.data],
    ['ls', guests],
    ['ls', paths.run],
    ['cat', join(guests, guest, 'images', image, 'manifest.json')],
    ['touch', join(guests, guest, 'images', image, 'new')],
    ['touch', join(guests, guest, 'layers', 'new')],
    ['truncate', '-s', '0', memory],
    ['truncate', '-s', '0', pinned],
    ['rm', '-f', memory],
    ['rm', '-f', log],
  ])
    await assert.rejects(asQemu(...command), /denied|not permitted/i, command.join(' '));
}

async function asQemu(...command: readonly string[]): Promise<void> {
  const [program = '', ...args] = [...runAs(USER), ...command];
  await run(program, args);
}
