import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { test } from 'node:test';
import { ImageTool } from '../../src/qemu/block/image-tool.ts';
import { DISK_BYTES, diskArgs, Lab, run } from './lab.ts';

test('an overlay names its backing file and has none of its data', async () => {
  await using lab = await Lab.open();
  const base = await lab.disk('base');
  const info = await lab.images.info(await lab.overlay('over', base));
  assert.equal(info['backing-filename'], base);
  assert.equal(info['backing-filename-format'], 'qcow2');
  assert.equal(info['virtual-size'], DISK_BYTES);
});

test('a disk in use is refused unless asked for, and readable when it is', async () => {
  await using lab = await Lab.open();
  const path = await lab.disk('base');
  await lab.launch('guest', diskArgs('vda', 'disk', path));
  await assert.rejects(lab.images.info(path), { code: 'storage-failed', message: /lock/ });
  assert.equal((await lab.images.info(path, { inUse: true })).format, 'qcow2');
});

test('what an overlay holds is merged downwards, with progress', async () => {
  await using lab = await Lab.open();
  const base = await lab.disk('base');
  const top = await lab.overlay('top', base);
  await run('qemu-io', ['-f', 'qcow2', '-c', 'write -P 7 1M 2M', top]);
  const done: number[] = [];
  await lab.images.commit({ top, base }, { onProgress: (fraction) => done.push(fraction) });
  assert.ok(await lab.images.compare({ path: top, format: 'qcow2' }, { path: base, format: 'qcow2' }));
  assert.equal(done.at(-1), 1);
  await run('qemu-io', ['-f', 'qcow2', '-c', 'read -P 7 1M 2M', base]);

  await lab.images.rebase({ path: top, unsafe: false });
  assert.equal((await lab.images.info(top))['backing-filename'], undefined);
  assert.ok(await lab.images.compare({ path: top, format: 'qcow2' }, { path: base, format: 'qcow2' }));
  await lab.images.rebase({ path: top, backing: base, backingFormat: 'qcow2', unsafe: true });
  assert.equal((await lab.images.info(top))['backing-filename'], base);
});

test('disks are compared by what they read as', async () => {
  await using lab = await Lab.open();
  const qcow2 = await lab.disk('a');
  await run('qemu-io', ['-f', 'qcow2', '-c', 'write -P 7 1M 2M', qcow2]);
  await lab.images.convert({ from: qcow2, fromFormat: 'qcow2', to: lab.path('raw'), toFormat: 'raw' });
  const [a, b] = [
    { path: qcow2, format: 'qcow2' },
    { path: lab.path('raw'), format: 'raw' },
  ] as const;
  assert.equal(await lab.images.compare(a, b), true);
  await run('qemu-io', ['-f', 'raw', '-c', 'write -P 8 0 512', b.path]);
  assert.equal(await lab.images.compare(a, b), false);
  const { requiredBytes, fullyAllocatedBytes } = await lab.images.measure(qcow2, 'qcow2', 'qcow2');
  assert.ok(requiredBytes > 2 << 20 && fullyAllocatedBytes > DISK_BYTES);
});

test('damage is found, and told from what is no disk at all', async () => {
  await using lab = await Lab.open();
  assert.deepEqual(await lab.images.check(await lab.disk('good'), 'qcow2'), {
    isClean: true,
    corruptions: 0,
    leaks: 0,
    checkErrors: 0,
  });
  await writeFile(lab.path('bad'), 'no disk');
  await assert.rejects(lab.images.check(lab.path('bad'), 'qcow2'), { code: 'storage-failed' });
  await assert.rejects(lab.images.info(lab.path('missing')), {
    code: 'storage-failed',
    message: /No such file/,
  });
});

test('a path can look like an option', async () => {
  await using lab = await Lab.open();
  await assert.rejects(lab.images.info('--help'), { code: 'storage-failed' });
});

test('a full disk, an abort and a missing tool have codes of their own', async (t) => {
  await using lab = await Lab.open();
  await assert.rejects(new ImageTool('/nonexistent/qemu-img').info('x'), { code: 'qemu-missing' });
  await assert.rejects(lab.images.info(await lab.disk('a'), { signal: AbortSignal.abort() }), {
    code: 'cancelled',
  });
  if (process.getuid?.() !== 0) return t.skip('mounting needs root');
  const mount = await lab.mountTmpfs('small', 1 << 20);
  await run('qemu-io', ['-f', 'qcow2', '-c', 'write -P 7 0 4M', lab.path('a')]);
  const copy = { from: lab.path('a'), fromFormat: 'qcow2', to: `${mount}/b`, toFormat: 'qcow2' } as const;
  return await assert.rejects(lab.images.convert(copy), { code: 'no-space' });
});
