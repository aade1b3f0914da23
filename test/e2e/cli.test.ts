/** The contract of the command line, as whole processes against a daemon that the first command starts. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import type { Guest, HostStatus, Image } from '../../src/client/index.ts';
import { fromStored } from '../../src/stored.ts';
import { Lab, testBoot } from '../support/lab.ts';

const run = promisify(execFile);

test('define, start, save, change, restore, delete: every command prints one JSON document', async () => {
  await using lab = await Lab.create();
  // The daemon that the commands meet is one that they started.
  await lab.endDaemon('SIGTERM');
  const json = async <T>(...args: string[]): Promise<T> => {
    const { status, stdout, stderr } = await lab.cli([...args, '--json']);
    assert.equal(status, 0, `stasis ${args.join(' ')}: ${stderr}`);
    return fromStored<T>(stdout);
  };

  await run('qemu-img', ['create', '-q', '-f', 'qcow2', join(lab.home, 'root.qcow2'), '64M']);
  const { kernel, initrd, cmdline } = testBoot();
  await writeFile(
    join(lab.home, 'web1.yaml'),
    `name: web1\nmemory: 128MiB\naccelerator: tcg\nboot: {kernel: ${kernel}, initrd: ${initrd}, cmdline: '${cmdline}'}\ndisks:\n  - {name: root, path: root.qcow2, format: qcow2}\n`,
  );
  const defined = await json<Guest>('define', join(lab.home, 'web1.yaml'));
  assert.equal(defined.state, 'stopped');
  assert.match(defined.machine, /^pc-q35-\d+\.\d+$/, 'pinned to an exact machine type');

  assert.equal((await json<Guest>('start', 'web1')).state, 'running');
  const host = await json<HostStatus>('host', 'status');
  lab.adoptDaemon(host.pid);
  {
    await using witness = await lab.witness('web1');
    await witness.fill(4, 8);
  }
  const image = await json<Image>('save', 'web1', 'before', '--live', '--description', 'try this');
  assert.equal(image.name, 'before');
  assert.equal(image.state, 'ready');
  assert.equal(image.live, true);
  assert.equal(typeof image.pauseMs, 'number');
  assert.equal(image.description, 'try this');
  assert.deepEqual(await json<Image[]>('images', 'web1'), [await json<Image>('info', 'web1', 'before')]);

  const restored = await json<Guest>(
    'restore',
    'web1',
    'before',
    '--paused',
    '--save-current',
    'present',
    '--yes',
  );
  assert.equal(restored.state, 'paused');
  assert.equal((await json<Guest>('resume', 'web1')).state, 'running');
  assert.deepEqual(
    (await json<Image[]>('images', 'web1')).map(({ name }) => name),
    ['before', 'present'],
  );
  const operation = await json<{ id: string; state: string }>('delete', 'web1', 'before');
  assert.equal(operation.state, 'done');

  const saved = await json<Image>('save', 'web1');
  assert.deepEqual(
    { name: saved.name, pauseMs: saved.pauseMs, method: saved.method },
    { name: 'default', pauseMs: null, method: 'stopped' },
  );
  assert.equal((await json<Guest>('show', 'web1')).state, 'stopped');
  assert.equal(
    (await json<Guest>('start', 'web1', '--fresh')).images,
    2,
    'a fresh start keeps the default image',
  );
  await json('stop', 'web1');
  assert.equal((await json<Guest>('start', 'web1')).images, 1, 'a start consumes it');
});

test('exit statuses: 2 wrong usage, 3 no such thing, 4 not possible in this state', async () => {
  await using lab = await Lab.create();
  await lab.define('web1', { disks: 1 });
  const failing = async (expected: number, code: string, ...args: string[]) => {
    const { status, stdout, stderr } = await lab.cli([...args, '--json']);
    assert.equal(status, expected, `stasis ${args.join(' ')}`);
    assert.equal(stdout, '');
    assert.equal(fromStored<{ error: { code: string } }>(stderr).error.code, code);
  };
  await failing(2, 'invalid-request', 'save');
  await failing(2, 'invalid-request', 'start', 'web1', '--nonsense');
  await failing(3, 'guest-not-found', 'show', 'nobody');
  await failing(3, 'image-not-found', 'info', 'web1', 'none');
  await failing(3, 'image-not-found', 'restore', 'web1', 'none', '--yes');
  await failing(4, 'invalid-state', 'save', 'web1');
  await failing(3, 'image-not-found', 'restore', 'web1', '--as', 'web2');
  await failing(4, 'invalid-state', 'save', 'web1', '--live', '--require-quiesce');
});
