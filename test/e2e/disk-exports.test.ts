/** Disks of images for other programs: by content, while the guest runs, and whoever ends first. */
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { access, constants, copyFile, open, readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { promisify } from 'node:util';
import type { Image } from '../../src/client/index.ts';
import { fromStored } from '../../src/stored.ts';
import { Lab, testBoot } from '../support/lab.ts';
import { changeContent, checkHousekeeping } from '../support/rules.ts';

const run = promisify(execFile);

/** Do two disks read the same? */
async function isSame(a: string, aFormat: string, b: string, bFormat: string): Promise<boolean> {
  const args = ['compare', '-q', '-U', '-f', aFormat, '-F', bFormat, a, b];
  return run('qemu-img', args).then(
    () => true,
    (error: unknown) => {
      if (error instanceof Error && 'code' in error && error.code === 1) return false;
      throw error;
    },
  );
}

/** The pinned layer of a disk. */
function pinned(image: Image, disk: string): { file: string; format: string } {
  const found = image.disks.find(({ name }) => name === disk);
  assert.ok(found, `image ${image.name} holds disk ${disk}`);
  return { file: found.layer, format: found.format };
}

async function images(lab: Lab, names: readonly string[]): Promise<Image[]> {
  const taken: Image[] = [];
  for (const [index, name] of names.entries()) {
    await changeContent(lab, 'web1', 200 + index);
    taken.push(await lab.client.createSaveImage('web1', { name, live: true }));
  }
  await changeContent(lab, 'web1', 299);
  return taken;
}

/** Resolves when what a reader left has been collected. */
async function collectAfter(lab: Lab, work: () => void): Promise<void> {
  const since = Math.max(...(await lab.client.listEvents()).map(({ id }) => id));
  work();
  for await (const { type, action, message } of lab.client.events({ since }))
    if (type === 'operation' && action === 'done' && message.startsWith('collect ')) break;
}

test('a disk of an image is exported to a flat file while the guest runs, and nothing is overwritten', async () => {
  await using lab = await Lab.create();
  await using witness = await lab.running('web1', { system: 'bare' });
  await witness.fill(1, 4);
  const [first, second] = await images(lab, ['first', 'second']);
  assert.ok(first && second);

  const file = join(lab.home, 'out.qcow2');
  const exported = await lab.cli(['export', 'web1', 'first', file, '--disk', 'disk0', '--json']);
  assert.equal(exported.status, 0, exported.stderr);
  assert.deepEqual(
    fromStored<{ file: string; sizeBytes: number }>(exported.stdout).sizeBytes,
    64 * 1024 ** 2,
  );
  const { stdout } = await run('qemu-img', ['info', '--output=json', file]);
  assert.ok(!('backing-filename' in fromStored<object>(stdout)), 'it stands alone');
  const firstLayer = pinned(first, 'disk0');
  assert.ok(await isSame(file, 'qcow2', firstLayer.file, firstLayer.format), 'it is that instant');
  assert.ok(!(await isSame(file, 'qcow2', pinned(second, 'disk0').file, 'qcow2')), 'and no other');

  const again = await lab.cli(['export', 'web1', 'second', file, '--disk', 'disk0']);
  assert.equal(again.status, 2);
  assert.match(again.stderr, /is there already/);
  const forced = await lab.cli(['export', 'web1', 'second', file, '--disk=disk0', '--format=raw', '--force']);
  assert.equal(forced.status, 0, forced.stderr);
  assert.ok(await isSame(file, 'raw', pinned(second, 'disk0').file, 'qcow2'));
  const { blocks } = await stat(file);
  assert.ok(blocks * 512 < 32 * 1024 ** 2, 'empty parts are holes');

  const which = await lab.cli(['export', 'web1', 'first', join(lab.home, 'x'), '--json']);
  assert.equal(which.status, 2);
  assert.match(which.stderr, /disk0, disk1/, 'the disks are named');
  const nobody = await lab.cli(['export', 'web1', 'third', join(lab.home, 'x'), '--json']);
  assert.equal(nobody.status, 3);
  assert.deepEqual(
    (await readdir(lab.home)).filter((name) => /part|^x$/.test(name)),
    [],
    'nothing is left',
  );
  await lab.nobodyServes();
});

test('what is read stays, whatever is deleted and whoever dies, and goes when it is read no more', async () => {
  await using lab = await Lab.create();
  await using witness = await lab.running('web1', { system: 'bare', disks: 1 });
  await witness.fill(1, 4);
  const [first, second] = await images(lab, ['first', 'second']);
  assert.ok(first && second);
  const copy = join(lab.home, 'copy.qcow2');
  await run('qemu-img', ['convert', '-U', '-O', 'qcow2', pinned(first, 'disk0').file, copy]);
  const layersOf = async () => (await lab.client.listDisks('web1')).flatMap(({ layers }) => layers);
  assert.deepEqual(
    (await layersOf()).map(({ images: by, writers, root }) => [root, by.map(({ name }) => name), writers]),
    [
      [true, ['first'], []],
      [false, ['second'], []],
      [false, [], ['web1']],
    ],
  );

  const held = await lab.client.exportDisk('web1', 'second');
  await lab.client.deleteSaveImage('web1', 'second');
  await lab.client.deleteSaveImage('web1', 'first');
  assert.deepEqual(await lab.client.listSaveImages('web1'), []);
  assert.equal((await layersOf()).length, 3, 'nothing is merged below a reader');
  assert.ok(await isSame(held.info.uri, 'raw', pinned(second, 'disk0').file, 'qcow2'));

  await lab.endDaemon('SIGKILL');
  assert.ok(await isSame(held.info.uri, 'raw', pinned(second, 'disk0').file, 'qcow2'), 'it needs no daemon');
  await lab.startDaemon();
  assert.deepEqual(
    (await layersOf()).map(({ readers }) => readers),
    [0, 1, 0],
    'the next daemon knows it',
  );
  await lab.client.stop('web1');
  await assert.rejects(lab.client.undefineGuest('web1'), { code: 'disk-in-use' });
  // The guest may not go on with a layer that is being read.
  await lab.client.start('web1');
  assert.equal((await layersOf()).length, 3);

  await collectAfter(lab, () => held[Symbol.dispose]());
  await held.closed;
  const [root, ...rest] = await layersOf();
  assert.ok(root?.root && root.readers === 0 && rest.length === 0, 'all is folded into the root');
  await lab.client.stop('web1');
  await lab.client.undefineGuest('web1');
  assert.deepEqual(await lab.diskServers(), []);
});

test('an export that the daemon does not survive leaves no process, at whatever step', async () => {
  await using lab = await Lab.create();
  await using witness = await lab.running('web1', { system: 'bare', disks: 1 });
  await witness.fill(1, 4);
  await images(lab, ['first']);
  for (const point of ['serve:after', 'commit:after']) {
    await lab.failAt(`export/${point}=kill`);
    const outcome = lab.client.exportDisk('web1', 'first').then(
      (held) => held[Symbol.dispose](),
      () => undefined,
    );
    await lab.daemonEnded();
    await lab.failAt();
    await lab.startDaemon();
    await outcome;
    assert.deepEqual(await lab.diskServers(), [], point);
    await checkHousekeeping(lab, 'web1');
  }
  await lab.failAt('export/commit:after=error');
  await assert.rejects(lab.client.exportDisk('web1', 'first'), { code: 'interrupted' });
  await lab.failAt();
  await lab.client.setPolicy('web1', { order: 1 });
  assert.deepEqual(await lab.diskServers(), [], 'nobody was told of it');
});

/** Containers often have no FUSE. */
const noFuse = await access('/dev/fuse', constants.R_OK | constants.W_OK).then(
  () => false,
  () => '/dev/fuse is not there, or not ours',
);

test(
  'a Windows file is read from an image that nobody started, through a file that only shows the disk',
  { skip: noFuse },
  async () => {
    await using lab = await Lab.create();
    const volume = join(lab.home, 'ntfs');
    await writeFile(volume, Buffer.alloc(8 * 1024 ** 2));
    await run('mkntfs', ['-F', '-Q', '-q', '-s', '512', '-p', '65536', volume]);
    await writeFile(join(lab.home, 'hello.txt'), 'hello from the past');
    await run('ntfscp', ['-f', volume, join(lab.home, 'hello.txt'), '/hello.txt']);
    const path = join(lab.home, 'web1.raw');
    const offset = 65536 * 512;
    {
      await using disk = await open(path, 'w');
      await disk.truncate(64 * 1024 ** 2);
      await disk.write(await readFile(volume), 0, undefined, offset);
    }
    const disks = [{ name: 'disk0', path, format: 'raw' }];
    await lab.client.defineGuest({
      name: 'web1',
      memory: '128MiB',
      accelerator: 'tcg',
      boot: testBoot(),
      disks,
    });
    await lab.client.start('web1');
    await (await lab.witness('web1')).close();
    await lab.client.createSaveImage('web1', { name: 'now' });

    const shown = join(lab.home, 'disk.img');
    const mount = spawn(
      process.execPath,
      [join(import.meta.dirname, '../../src/main.ts'), 'mount', 'web1', 'now', '--fuse', shown],
      {
        env: { ...process.env, STASIS_HOME: lab.home },
        stdio: ['ignore', 'pipe', 'inherit'],
      },
    );
    const ended = once(mount, 'exit');
    try {
      for await (const line of createInterface(mount.stdout)) if (line.includes('^C ends it')) break;
      const partition = join(lab.home, 'partition');
      await copyFile(shown, partition);
      await assert.rejects(writeFile(shown, 'x'), 'it can only be read');
      {
        await using file = await open(partition, 'r+');
        const { buffer } = await file.read(Buffer.alloc(8 * 1024 ** 2), 0, 8 * 1024 ** 2, offset);
        await writeFile(volume, buffer);
      }
      assert.equal((await run('ntfscat', ['-f', volume, '/hello.txt'])).stdout, 'hello from the past');
    } finally {
      mount.kill('SIGINT');
      await ended;
    }
    assert.equal(mount.exitCode, 0);
    await assert.rejects(stat(shown), { code: 'ENOENT' }, 'the file that was made for it has gone with it');
    await lab.nobodyServes();
  },
);
