import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFile } from 'node:fs/promises';
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

  async function restoreAndCheck(name: string, asNewGuest?: string): Promise<void> {
    await lab.client.restoreSaveImage(GUEST, name, asNewGuest === undefined ? {} : { asNewGuest });
    const content = await contentOf(lab, asNewGuest ?? GUEST);
    assert.deepEqual(content, expected.get(name), `${name} holds what it was`);
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

  test('each image is restored as it was, memory and disks of one instant, also beside the guest', async () => {
    await save('b');
    await changeContent(lab, GUEST, 60);
    await restoreAndCheck('b');
    assert.deepEqual(await volumes(), ['copy', 'head', ...USERS, 'snap'].toSorted());
    await save('c');
    const present = await changeContent(lab, GUEST, 61);
    await restoreAndCheck('b', 'copy');
    assert.deepEqual(await contentOf(lab, GUEST), present, 'the guest noticed nothing');
    await lab.client.stop('copy');
    await lab.client.undefineGuest('copy');
    await checkHousekeeping(lab, GUEST);
    await restoreAndCheck('c');
  });

  test('disks of images are exported, and shown as files, while the guest goes on', async () => {
    const { disks = [] } = (await lab.client.listSaveImages(GUEST)).find(({ name }) => name === 'c') ?? {};
    await changeContent(lab, GUEST, 62);
    for (const [index, { name, layer, format }] of disks.entries()) {
      const [flat, shown, copy] = ['flat', 'shown', 'copy'].map((file) => join(lab.home, `${file}${index}`));
      assert.ok(flat && shown && copy);
      const exported = await lab.cli(['export', GUEST, 'c', flat, '--disk', name, '--format', 'raw']);
      assert.equal(exported.status, 0, exported.stderr);
      await run('qemu-img', ['compare', '-q', '-U', '-f', 'raw', '-F', format, flat, layer]);
      await assert.rejects(
        run('qemu-img', ['compare', '-q', '-U', '-f', 'raw', flat, `/dev/${GROUP}/web1-${index}`]),
        'the guest has written since',
      );
      await showing(['mount', GUEST, 'c', '--disk', name, '--fuse', shown], () => copyFile(shown, copy));
      await run('cmp', [flat, copy]);
    }
    assert.deepEqual(await lab.diskServers(), []);
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

function volumesOf(guest: string): Parameters<Lab['defineOn']>[1] {
  return ['0', '1'].map((index) => ({
    ...{ name: `disk${index}`, path: `/dev/${GROUP}/${guest}-${index}`, format: 'raw', driver: 'overlay' },
  }));
}
