import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFile, open } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import { StasisError } from '../../src/errors.ts';
import { Lab } from '../support/lab.ts';
import { BOTH_VOLUMES, GROUP, volumes } from '../support/lvm-ground.ts';
import { changeContent, checkHousekeeping, contentOf, type Content } from '../support/rules.ts';

// Run by lvm.test.ts inside the guest with LVM: a guest writes to a thin and a plain volume, and witnesses what it finds.

const run = promisify(execFile);
const GUEST = 'web1';
const MAIN = join(import.meta.dirname, '../../src/main.js');
const UNUSED_OFFSET = 50 * 1024 ** 2;
const USERS = ['pool', 'web1-0', 'web1-1'];

describe('a guest on a thin and a plain volume', () => {
  let lab: Lab;
  const expected = new Map<string, Content>();

  before(async () => {
    lab = await Lab.on(BOTH_VOLUMES);
    await using witness = await lab.running(GUEST, { system: 'bare' });
    await witness.fill(1, 1);
  });
  after(() => lab[Symbol.asyncDispose]());

  const saveLive = (name: string) =>
    lab.client.createSaveImage(GUEST, { name, live: true, maxPauseMs: BOTH_VOLUMES.maxPauseMs });

  async function save(name: string): Promise<void> {
    expected.set(name, await changeContent(lab, GUEST, expected.size + 10));
    await saveLive(name);
  }

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

  test('disks of an image are exported, and shown as files, while the guest goes on', async () => {
    await save('b');
    await changeContent(lab, GUEST, 60);
    const [image] = await lab.client.listSaveImages(GUEST);
    const [thin, plain] = image?.disks ?? [];
    assert.ok(thin && plain);
    const [exported, shown, copy] = ['exported', 'shown', 'copy'].map((name) => join(lab.home, name));
    assert.ok(exported && shown && copy);
    const { status, stderr } = await lab.cli(
      ['export', GUEST, 'b', exported, '--disk', plain.name].concat('--format', 'raw'),
    );
    assert.equal(status, 0, stderr);
    await showing(['mount', GUEST, 'b', '--disk', thin.name, '--fuse', shown], () => copyFile(shown, copy));
    const written = [`/dev/${GROUP}/web1-0`, `/dev/${GROUP}/web1-1`];
    for (const [index, [file, { layer }]] of [[copy, thin] as const, [exported, plain] as const].entries()) {
      await run('cmp', [file, layer]);
      await assert.rejects(run('cmp', [file, written[index] ?? '']), 'the guest has written since');
    }
    await lab.nobodyServes();
  });

  test('an image is restored as it was: a thin disk from a snapshot, a plain one from an overlay', async () => {
    await lab.client.restoreSaveImage(GUEST, 'b');
    assert.deepEqual(await contentOf(lab, GUEST), expected.get('b'));
    assert.deepEqual(await volumes(), ['copy', 'head', ...USERS, 'snap'].toSorted());
    await checkHousekeeping(lab, GUEST);
  });

  /** Does something while a command of `stasis` shows a disk. */
  async function showing(args: readonly string[], work: () => Promise<void>): Promise<void> {
    const mount = spawn(process.execPath, [MAIN, ...args], {
      env: { ...process.env, STASIS_HOME: lab.home },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const ended = once(mount, 'exit');
    try {
      for await (const line of createInterface(mount.stdout)) if (line.includes('^C ends it')) break;
      await work();
    } finally {
      mount.kill('SIGINT');
      await ended;
    }
    assert.equal(mount.exitCode, 0);
  }

  test('an image is verified, and damage to its volume is told', async () => {
    const verify = () => lab.client.verifySaveImage(GUEST, 'b');
    assert.equal((await verify()).state, 'ready');
    const [image] = await lab.client.listSaveImages(GUEST);
    const [thin] = image?.disks ?? [];
    assert.ok(thin);
    await run('lvchange', ['-qq', '-prw', thin.layer]);
    await writeByte(thin.layer, 1);
    await assert.rejects(verify(), { code: 'image-damaged' });
    await writeByte(thin.layer, 0);
    await run('lvchange', ['-qq', '-pr', thin.layer]);
    assert.equal((await verify()).state, 'ready');
  });

  test('in the end the volumes of the user hold what was written, and no other is left', async () => {
    const final = await changeContent(lab, GUEST, 70);
    await lab.client.stop(GUEST);
    await lab.client.undefineGuest(GUEST, { deleteImages: true });
    assert.deepEqual(await volumes(), USERS);
    await lab.defineOn('again', volumesOf('web1'), { system: 'bare' });
    await lab.client.start('again');
    await using witness = await lab.witness('again');
    assert.equal((await witness.read('vda', 16, 2)).checksum, final.disk);
    assert.equal((await witness.status()).mismatches, 0);
  });
});

/** At a place to which the guest never wrote. */
async function writeByte(device: string, value: number): Promise<void> {
  await using file = await open(device, 'r+');
  await file.write(Buffer.of(value), 0, 1, UNUSED_OFFSET);
  await file.sync();
}

function volumesOf(guest: string): Parameters<Lab['defineOn']>[1] {
  return ['0', '1'].map((index) => ({
    ...{ name: `disk${index}`, path: `/dev/${GROUP}/${guest}-${index}`, format: 'raw', driver: 'overlay' },
  }));
}
