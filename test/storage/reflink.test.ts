/** What the reflink driver does to files, without a guest. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { chmod, readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { findQemu } from '../../src/qemu/build/binary.ts';
import { ImageTool } from '../../src/qemu/block/image-tool.ts';
import type { LayerFile } from '../../src/storage/driver.ts';
import { allDrivers } from '../../src/storage/drivers.ts';
import { kindsNamed, NO_REFLINKS } from '../support/grounds.ts';

const run = promisify(execFile);
const [XFS, QCOW2] = kindsNamed('reflinks of raw files on XFS, reflinks of qcow2 on XFS');
assert.ok(XFS && QCOW2);
const drivers = allDrivers(new ImageTool((await findQemu()).imageToolPath));
const reflink = drivers.get('reflink');

test(
  'a file system that can not share blocks gets overlays, and says why',
  { skip: NO_REFLINKS.skip },
  async () => {
    await using ground = await NO_REFLINKS.open();
    const disk = await ground.makeDisk('disk', 16);
    assert.equal(await drivers.choose(disk), 'overlay');
    await assert.rejects(drivers.choose(disk, 'reflink'), {
      code: 'unsupported',
      message:
        /can't have the storage driver reflink, because its file system can't share blocks between files/,
    });
  },
);

test('a disk is tried, and nothing is left of it', { skip: XFS.skip }, async () => {
  await using ground = await XFS.open();
  const disk = await ground.makeDisk('disk', 16);
  const before = await readdir(dirname(disk.path));
  assert.equal(await drivers.choose(disk), 'reflink');
  assert.equal(await drivers.choose(disk, 'overlay'), 'overlay');
  assert.equal(await reflink.whyNot({ path: dirname(disk.path), format: 'raw' }), 'it is no file');
  assert.deepEqual(await readdir(dirname(disk.path)), before);
});

test(
  'a qcow2 that is found only from where it lies is not copied elsewhere',
  { skip: QCOW2.skip },
  async () => {
    await using ground = await QCOW2.open();
    const { path } = await ground.makeDisk('base', 16);
    const over = async (name: string, backing: string) => {
      const disk = { path: join(dirname(path), name), format: 'qcow2' } as const;
      await run('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', backing, '-F', 'qcow2', disk.path]);
      return disk;
    };
    assert.match((await reflink.whyNot(await over('a.qcow2', 'base.qcow2'))) ?? '', /relative to itself/);
    assert.equal(await reflink.whyNot(await over('b.qcow2', path)), undefined);
    const elsewhere = { path: join(dirname(path), 'c.qcow2'), format: 'qcow2' } as const;
    const options = `data_file=${join(dirname(path), 'data')}`;
    await run('qemu-img', ['create', '-q', '-f', 'qcow2', '-o', options, elsewhere.path, '16M']);
    assert.equal(await reflink.whyNot(elsewhere), 'its data is in another file');
  },
);

test(
  'a copy takes the place of the file of the user once, as that file was',
  { skip: XFS.skip },
  async () => {
    await using ground = await XFS.open();
    const { path } = await ground.makeDisk('disk', 1);
    await writeFile(path, 'old'.padEnd(1 << 20, '.'));
    await chmod(path, 0o640);
    const root: LayerFile = {
      id: 'root',
      path,
      format: 'raw',
      sizeBytes: 1 << 20,
      parent: null,
      driver: 'reflink',
    };
    const directory = reflink.layerDirectory?.(path, 'guest') ?? '';
    const place = { disk: 'disk', guest: 'guest', directory, root: path };
    const copy = await reflink.planHead(root, place);
    await reflink.make(copy, root);
    await reflink.make(copy, root); // what an interrupted attempt left is replaced
    assert.deepEqual([copy.parent, copy.from, copy.driver], [null, 'root', 'reflink']);
    await writeFile(copy.path, 'new'.padEnd(1 << 20, '.'));
    await chmod(copy.path, 0o600);
    const sealed = await reflink.identity(copy);

    await reflink.replaceRoot(copy, root, sealed);
    assert.match(await readFile(path, 'utf8'), /^new/);
    assert.equal((await stat(path)).mode & 0o777, 0o640);
    await reflink.replaceRoot(copy, root, sealed);
    assert.match(await readFile(path, 'utf8'), /^new/, 'the second time nothing happens');

    await writeFile(path, 'else');
    await assert.rejects(reflink.replaceRoot(copy, root, sealed), { code: 'disk-missing' });
    await reflink.make(copy, root);
    await assert.rejects(reflink.replaceRoot(copy, root, sealed), { code: 'disk-changed' });
    await reflink.leave?.(place);
    assert.deepEqual(await readdir(dirname(path)), ['disk.raw']);
  },
);

test('a layer that lies elsewhere is not copied but laid over', { skip: XFS.skip }, async () => {
  await using ground = await XFS.open();
  const { path } = await ground.makeDisk('disk', 1);
  const layer: LayerFile = {
    id: 'x',
    path: '/elsewhere/x.qcow2',
    format: 'qcow2',
    sizeBytes: 1,
    parent: 'y',
    driver: 'overlay',
  };
  const place = {
    disk: 'disk',
    guest: 'guest',
    directory: reflink.layerDirectory?.(path, 'guest') ?? '',
    root: path,
  };
  assert.equal(await reflink.planCopy?.(layer, place), undefined);
  const head = await reflink.planHead(layer, place);
  assert.deepEqual([head.driver, head.parent, dirname(head.path)], ['overlay', 'x', place.directory]);
});
