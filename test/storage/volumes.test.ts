import assert from 'node:assert/strict';
import { chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { test } from 'node:test';
import type { LayerFile, StorageDriver } from '../../src/storage/driver.ts';
import { volumeAt } from '../../src/storage/lvm-volumes.ts';
import { rbd } from '../../src/storage/rbd.ts';
import { zfs } from '../../src/storage/zfs.ts';

// ZFS and Ceph are not to be had here. What can be tested without is which commands the drivers give: programs of their
// names note their arguments, and answer as the manuals say.

interface Tools extends AsyncDisposable {
  /** the commands since the last call */
  given(): Promise<string[]>;
}

/** @param answers what a command prints, by its beginning */
async function noting(tool: string, answers: Readonly<Record<string, string>>): Promise<Tools> {
  const directory = await mkdtemp(join(tmpdir(), 'stasis-noting-'));
  const log = join(directory, 'log');
  const path = process.env['PATH'] ?? '';
  const cases = Object.entries(answers).map(([begin, text]) => `'${begin}'*) printf '${text}' ;;`);
  for (const name of [tool, 'udevadm']) {
    const script = `#!/bin/sh\necho "${name} $*" >> ${log}\ncase "$*" in\n${cases.join('\n')}\nesac\n`;
    await writeFile(join(directory, name), script);
    await chmod(join(directory, name), 0o755);
  }
  await writeFile(log, '');
  process.env['PATH'] = `${directory}:${path}`;
  return {
    async given() {
      const commands = (await readFile(log, 'utf8')).split('\n').filter((line) => line !== '');
      await writeFile(log, '');
      return commands.filter((command) => !/^(zfs (list|get)|rbd (ls|info|device list))/.test(command));
    },
    async [Symbol.asyncDispose]() {
      process.env['PATH'] = path;
      await rm(directory, { recursive: true, force: true });
    },
  };
}

const root = (driver: 'zfs' | 'rbd', path: string): LayerFile => ({
  ...{ id: 'root', path, format: 'raw', sizeBytes: 1 << 30, parent: null, driver },
});

async function capture(driver: StorageDriver, head: LayerFile, tools: Tools) {
  const place = { disk: 'disk0', guest: '11-22', directory: '/nowhere', root: head.path };
  const copy = await driver.planCopy?.(head, place);
  assert.ok(copy !== undefined);
  await driver.make(copy, head);
  const inPause = await tools.given();
  const next = await driver.planHead(copy, place);
  await driver.make(next, copy);
  return { copy, inPause, next, forHead: await tools.given() };
}

test('zfs: a snapshot in the pause, a clone for a head, and the heir of a snapshot is promoted', async () => {
  await using tools = await noting('zfs', {
    'list -H -t volume -o name': 'tank/vm\\n',
    'list -H -t snapshot -o name,clones': 'tank/vm@old\\t-\\n',
  });
  const disk = root('zfs', '/dev/zvol/tank/vm');
  assert.equal(await zfs.whyNot(disk), undefined);
  assert.deepEqual(await tools.given(), [
    'zfs snapshot tank/vm@stasis-trial',
    'zfs destroy tank/vm@stasis-trial',
  ]);
  assert.match((await zfs.whyNot({ path: '/dev/sda', format: 'raw' })) ?? '', /does not begin/);
  const { copy, inPause, next, forHead } = await capture(zfs, disk, tools);
  assert.deepEqual(inPause, [`zfs snapshot tank/vm@stasis-${copy.id}`]);
  const [from, head] = [`tank/${basename(copy.path)}`, `tank/${basename(next.path)}`];
  assert.deepEqual(forHead, [
    `zfs snapshot ${from}@stasis-${next.id}`,
    `zfs clone -o readonly=off ${from}@stasis-${next.id} ${head}`,
    `udevadm settle --exit-if-exists=${next.path}`,
  ]);
  await assert.rejects(zfs.remove(disk), { code: 'internal' }, 'the volume of the user is never removed');
});

test('zfs: a volume that others need is removed after one of them got its snapshots', async () => {
  const name = 'stasis-head-1122-abc';
  await using tools = await noting('zfs', {
    'list -H -t volume': `tank/vm\\ntank/${name}\\n`,
    'list -H -t snapshot -o name,clones': `tank/${name}@stasis-1\\ttank/a\\ntank/${name}@stasis-2\\ttank/b,tank/c\\n`,
    'list -H -t snapshot -o name ': 'tank/vm@stasis-abc\\n',
  });
  await zfs.remove({ ...root('zfs', `/dev/zvol/tank/${name}`), id: 'abc' });
  assert.deepEqual(await tools.given(), [
    'zfs promote tank/b',
    `zfs destroy tank/${name}`,
    'zfs destroy -d tank/vm@stasis-abc',
  ]);
});

test('rbd: a snapshot in the pause, a clone that is mapped for a head, and what goes goes to the trash', async () => {
  await using tools = await noting('rbd', {
    'ls --long': '[{"image":"vm"},{"image":"vm","snapshot":"stasis-abc"}]',
    'ls ': '["vm","stasis-head-1122-abc"]',
    'device list': '[{"pool":"pool","name":"stasis-head-1122-abc"}]',
  });
  const disk = root('rbd', '/dev/rbd/pool/vm');
  assert.equal(await rbd.whyNot(disk), undefined);
  assert.deepEqual(await tools.given(), [
    'rbd snap create --no-progress pool/vm@stasis-trial',
    'rbd snap rm --no-progress pool/vm@stasis-trial',
  ]);
  const { copy, inPause, next, forHead } = await capture(rbd, disk, tools);
  assert.deepEqual(inPause, [`rbd snap create --no-progress pool/vm@stasis-${copy.id}`]);
  const [from, head] = [`pool/${basename(copy.path)}`, `pool/${basename(next.path)}`];
  assert.deepEqual(forHead, [
    `rbd snap create --no-progress ${from}@stasis-${next.id}`,
    `rbd clone --rbd-default-clone-format 2 ${from}@stasis-${next.id} ${head}`,
    `rbd device map ${head}`,
    `udevadm settle --exit-if-exists=${next.path}`,
  ]);
  await rbd.remove({ ...root('rbd', '/dev/rbd/pool/stasis-head-1122-abc'), id: 'abc' });
  assert.deepEqual(await tools.given(), [
    'rbd device unmap pool/stasis-head-1122-abc',
    'rbd trash mv pool/stasis-head-1122-abc',
    'rbd snap rm --no-progress pool/vm@stasis-abc',
  ]);
  await assert.rejects(rbd.remove(disk), { code: 'internal' });
});

test('lvm: both names of a device say which volume it is, a number says nothing', () => {
  const volume = { group: 'my-vg', name: 'web-1' };
  assert.deepEqual(volumeAt('/dev/my-vg/web-1'), volume);
  assert.deepEqual(volumeAt('/dev/mapper/my--vg-web--1'), volume);
  for (const path of ['/dev/dm-7', '/dev/sda', '/dev/mapper/control', '/var/disk.raw', '/dev/a/b/c'])
    assert.equal(volumeAt(path), undefined, path);
});
