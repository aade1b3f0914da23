import assert from 'node:assert/strict';
import { test } from 'node:test';
import { backingChain, headNodes, nodeNames } from '../../src/qemu/block/block-graph.ts';
import { commitActive, commitIntermediate, streamInto } from '../../src/qemu/block/block-merge.ts';
import { killQemu, type QemuProcess } from '../../src/qemu/process/process.ts';
import type { QmpClient } from '../../src/qemu/qmp/client.ts';
import { isRunning } from '../../src/qemu/process/run-state.ts';
import { DISK_BYTES, Lab, run } from './lab.ts';

/** Slow enough that a job of a few MiB is surely still at work when it is aborted. */
const SLOW = 64 << 10;

interface Chain {
  readonly guest: QemuProcess;
  readonly qmp: QmpClient;
  readonly paths: readonly [root: string, middle: string, head: string];
  /** What the guest's disk reads as, in one file. */
  readonly flat: string;
}

/** A running guest with a disk of three layers, each with data of its own, the nodes `root`, `middle` and `head`. */
async function launchWithChain(lab: Lab): Promise<Chain> {
  const root = await lab.disk('root.qcow2');
  await writePattern(root, 1, '0 4M');
  const middle = await lab.overlay('middle.qcow2', root);
  await writePattern(middle, 2, '1M 4M');
  const head = await lab.overlay('head.qcow2', middle);
  await writePattern(head, 3, '3M 4M');
  const flat = lab.path('flat.qcow2');
  await lab.images.convert({ from: head, fromFormat: 'qcow2', to: flat, toFormat: 'qcow2' });

  const node = (name: string, path: string, backing: string): string[] => [
    '-blockdev',
    `driver=qcow2,node-name=${name},file.driver=file,file.filename=${path}${backing}`,
  ];
  const guest = await lab.launch('guest', [
    ...node('root', root, ''),
    ...node('middle', middle, ',backing=root'),
    ...node('head', head, ',backing=middle'),
    ...['-device', 'virtio-blk-pci,drive=head,id=vda'],
  ]);
  return { guest, qmp: guest.qmp, paths: [root, middle, head], flat };
}

async function writePattern(path: string, pattern: number, range: string): Promise<void> {
  await run('qemu-io', ['-f', 'qcow2', '-c', `write -P ${pattern} ${range}`, path]);
}

async function assertReadsTheSame(lab: Lab, { guest, flat }: Chain, head: string): Promise<void> {
  await killQemu(guest.runDirectory, { graceMs: 30_000 });
  assert.ok(await lab.images.compare({ path: flat, format: 'qcow2' }, { path: head, format: 'qcow2' }));
  assert.ok((await lab.images.check(head, 'qcow2')).isClean);
}

test('the graph is told: heads by device, chains by node', async () => {
  await using lab = await Lab.open();
  const { qmp } = await launchWithChain(lab);
  assert.deepEqual([...(await headNodes(qmp))], [['vda', 'head']]);
  assert.deepEqual(await backingChain(qmp, 'head'), ['head', 'middle', 'root']);
  assert.deepEqual(await backingChain(qmp, 'root'), ['root']);
  assert.ok((await nodeNames(qmp)).has('middle'));
  await assert.rejects(backingChain(qmp, 'nothing'), { code: 'qemu-failed' });
});

test('a layer in the middle is merged into its base under a running guest', async () => {
  await using lab = await Lab.open();
  const chain = await launchWithChain(lab);
  const { qmp, paths } = chain;
  const done: number[] = [];
  await commitIntermediate(qmp, {
    jobId: 'merge',
    head: 'head',
    top: 'middle',
    base: 'root',
    backingFile: paths[0],
    onProgress: ({ bytesDone }) => done.push(bytesDone),
  });
  assert.deepEqual(await backingChain(qmp, 'head'), ['head', 'root']);
  assert.ok((done.at(-1) ?? 0) > 0);
  assert.deepEqual(await qmp.execute('query-jobs'), []);
  await assertReadsTheSame(lab, chain, paths[2]);
});

test('layers are merged upwards into the head under a running guest', async () => {
  await using lab = await Lab.open();
  const chain = await launchWithChain(lab);
  await streamInto(chain.qmp, {
    jobId: 'merge',
    node: 'head',
    baseNode: 'root',
    backingFile: chain.paths[0],
  });
  assert.deepEqual(await backingChain(chain.qmp, 'head'), ['head', 'root']);
  await streamInto(chain.qmp, { jobId: 'merge', node: 'head' });
  assert.deepEqual(await backingChain(chain.qmp, 'head'), ['head']);
  await assertReadsTheSame(lab, chain, chain.paths[2]);
});

test('the head is merged into its base, which takes over while the guest stands still', async () => {
  await using lab = await Lab.open();
  const chain = await launchWithChain(lab);
  const { qmp } = chain;
  const seen: string[] = [];
  const look = (moment: string) => async (): Promise<void> => {
    const heads = await headNodes(qmp);
    seen.push(`${moment}: ${heads.get('vda')} ${(await isRunning(qmp)) ? 'running' : 'paused'}`);
  };
  const { pauseMs } = await commitActive(qmp, {
    jobId: 'merge',
    head: 'head',
    base: 'root',
    beforePivot: look('before'),
    afterPivot: look('after'),
  });
  assert.deepEqual(seen, ['before: head paused', 'after: root paused']);
  assert.ok(pauseMs !== undefined && pauseMs > 0);
  assert.equal(await isRunning(qmp), true);
  await assertReadsTheSame(lab, chain, chain.paths[0]);
});

test('a paused guest stays paused when its head is merged', async () => {
  await using lab = await Lab.open();
  const { qmp } = await launchWithChain(lab);
  await qmp.execute('stop');
  const nothing = async (): Promise<void> => undefined;
  const options = { jobId: 'merge', head: 'head', base: 'root', beforePivot: nothing, afterPivot: nothing };
  assert.equal((await commitActive(qmp, options)).pauseMs, undefined);
  assert.equal(await isRunning(qmp), false);
});

test('a merge that may not switch over leaves the guest running on its head', async () => {
  await using lab = await Lab.open();
  const chain = await launchWithChain(lab);
  const merge = commitActive(chain.qmp, {
    jobId: 'merge',
    head: 'head',
    base: 'root',
    beforePivot: () => Promise.reject(new Error('the journal is full')),
    afterPivot: () => assert.fail('it must not have switched over'),
  });
  await assert.rejects(merge, { message: 'the journal is full' });
  assert.equal((await headNodes(chain.qmp)).get('vda'), 'head');
  assert.equal(await isRunning(chain.qmp), true);
  assert.deepEqual(await chain.qmp.execute('query-jobs'), []);
  await assertReadsTheSame(lab, chain, chain.paths[2]);
});

test('a merge can be aborted, and repeated', async () => {
  await using lab = await Lab.open();
  const chain = await launchWithChain(lab);
  const { qmp, paths } = chain;
  const merge = { jobId: 'merge', head: 'head', top: 'middle', base: 'root', backingFile: paths[0] };
  const abort = new AbortController();
  const progress = { speedBytesPerSecond: SLOW, onProgress: () => abort.abort(), signal: abort.signal };
  await assert.rejects(commitIntermediate(qmp, { ...merge, ...progress }), { code: 'cancelled' });
  assert.deepEqual(await backingChain(qmp, 'head'), ['head', 'middle', 'root']);
  assert.deepEqual(await qmp.execute('query-jobs'), []);
  await commitIntermediate(qmp, merge);
  await assertReadsTheSame(lab, chain, paths[2]);
});

test(
  'a merge that fails tells why, and the chain stays',
  { skip: process.getuid?.() !== 0 && 'mounting needs root' },
  async () => {
    await using lab = await Lab.open();
    const mount = await lab.mountTmpfs('small', 1 << 20);
    const root = `${mount}/root.qcow2`;
    await lab.images.createDisk({ path: root, format: 'qcow2', virtualSizeBytes: DISK_BYTES });
    const head = await lab.overlay('head.qcow2', root);
    await writePattern(head, 1, '0 4M');
    const { qmp } = await lab.launch('guest', [
      ...['-blockdev', `driver=qcow2,node-name=root,file.driver=file,file.filename=${root}`],
      ...['-blockdev', `driver=qcow2,node-name=head,file.driver=file,file.filename=${head},backing=root`],
      ...['-device', 'virtio-blk-pci,drive=head,id=vda'],
    ]);
    const nothing = async (): Promise<void> => undefined;
    const options = { jobId: 'merge', head: 'head', base: 'root', beforePivot: nothing, afterPivot: nothing };
    await assert.rejects(commitActive(qmp, options), { code: 'no-space' });
    assert.deepEqual(await backingChain(qmp, 'head'), ['head', 'root']);
    assert.equal(await isRunning(qmp), true);
  },
);

test('what was merged is in the file when the job has ended, whatever becomes of QEMU then', async () => {
  await using lab = await Lab.open();
  const { guest, qmp, paths, flat } = await launchWithChain(lab);
  const [root, , head] = paths;
  await streamInto(qmp, { jobId: 'merge', node: 'head', baseNode: 'root', backingFile: root });
  process.kill(guest.pid, 'SIGKILL');
  await guest.exited;
  assert.ok(await lab.images.compare({ path: flat, format: 'qcow2' }, { path: head, format: 'qcow2' }));
});
