/** What the preflight says of images and guests, held against what QEMU really does. */
import assert from 'node:assert/strict';
import { chmod, mkdir, mkdtemp, readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { findQemu } from '../../src/qemu/build/binary.ts';
import { lackingFeatures } from '../../src/qemu/build/processor.ts';
import { loadableFormats, loadProblems, parseFormats } from '../../src/qemu/build/vmstate.ts';
import { readMemoryFile } from '../../src/qemu/memory/memory-file.ts';
import { STREAM_OFFSET } from '../../src/qemu/migration.ts';
import { Lab } from '../support/lab.ts';

describe('an image, and QEMUs that could restore it or not', () => {
  let lab: Lab;
  before(async () => {
    lab = await Lab.create();
    await lab.running('web');
    await lab.client.createSaveImage('web', { name: 'first', live: true });
  });
  after(() => lab[Symbol.asyncDispose]());

  test('what is said to be possible is, and costs no guest anything', async () => {
    const { results } = await lab.client.checkHost();
    assert.deepEqual(
      results.map(({ guest, image, verdict, reasons }) => [guest, image, verdict, reasons]),
      [
        ['web', null, 'yes', []],
        ['web', 'first', 'yes', []],
      ],
    );
    assert.equal((await lab.client.getGuest('web')).state, 'running');
    await lab.client.restoreSaveImage('web', 'first');
    const { status, stdout } = await lab.cli(['host', 'check', 'web', 'first']);
    assert.deepEqual([status, /first .*yes/.test(stdout)], [0, true]);
  });

  test('a device whose state a QEMU could not load is named', async () => {
    const { memoryFile, machine } = await lab.client.getSaveImageInfo('web', 'first');
    const { states } = await readMemoryFile(memoryFile, STREAM_OFFSET);
    const own = await loadableFormats(await findQemu(), machine);
    assert.deepEqual(loadProblems(states, own, own), []);
    const changed = (name: string, format: object) =>
      new Map([...own, ...parseFormats(JSON.stringify({ name, ...format }))]);
    const older = changed('virtio-blk', { version_id: 1, minimum_version_id: 1 });
    assert.match(loadProblems(states, older, own).join(), /virtio-blk .* version 2, .* up to 1$/);
    const newer = changed('virtio-blk', { version_id: 9, minimum_version_id: 5 });
    assert.match(loadProblems(states, newer, own).join(), /virtio-blk .* from 5 on$/);
    const poorer = changed('fw_cfg', { version_id: 2, minimum_version_id: 1, Subsections: [] });
    assert.match(loadProblems(states, poorer, own).join(), /fw_cfg was saved with "fw_cfg\//);
    const gone = new Map([...own].filter(([name]) => name !== 'hpet'));
    assert.match(loadProblems(states, gone, own).join(), /does not know the state of hpet/);
  });

  test('a program that is no QEMU is refused, and the processor is compared bit by bit', async () => {
    const { status } = await lab.cli(['host', 'check', '--with', '/bin/true']);
    assert.equal(status, 4);
    const word = { leaf: 7, subleaf: 0, register: 'EBX', bits: 0x80000021 };
    assert.deepEqual(lackingFeatures([word], [{ ...word, bits: 0x21 }]), ['CPUID 7.0:EBX bits 80000000']);
    assert.deepEqual(lackingFeatures([word], [{ ...word, bits: 0xffffffff }]), []);
  });
});

test('a guest is run by the build that it names, and an image of it by what its guest is run by then', async () => {
  await using lab = await labWithBuilds();
  const { client } = lab;
  await lab.running('web', { system: 'bare', disks: 1, extra: { qemu: { build: 'other' } } });
  assert.equal(await runsByOther(lab, 'web'), true);
  const { versionText } = await findQemu();
  assert.deepEqual((await client.getGuest('web')).qemu, { build: 'other', version: versionText });
  const { qemuVersion } = await client.createSaveImage('web', { name: 'a', live: true });
  assert.equal(qemuVersion, versionText);

  const { stdout } = await lab.cli(['qemu', 'web', '--usual']);
  assert.match(stdout, /^the usual one; it runs by /, 'from the next start on');
  await client.setLabels('web', ['own']);
  await client.restoreSaveImage('web', 'a');
  assert.equal(await runsByOther(lab, 'web'), false);
  const { qemu, labels } = await client.getGuest('web');
  assert.deepEqual([qemu.build, labels], [null, ['own']], 'what was decided since the image stays');
  await client.setQemu('web', 'other');
  await client.restoreSaveImage('web', 'a', { asNewGuest: 'clone' });
  assert.equal(await runsByOther(lab, 'clone'), true);
  await client.stop('web');
  await client.start('web', { fresh: true });
  assert.equal(await runsByOther(lab, 'web'), true);
  assert.deepEqual(
    (await client.checkHost({ build: 'other', guest: 'web' })).results.map(({ verdict }) => verdict),
    ['yes', 'yes'],
  );
});

test('a build that is not there is told by name, and keeps nothing else from working', async () => {
  await using lab = await labWithBuilds();
  const { client } = lab;
  await lab.define('web', { system: 'bare', disks: 1 });
  await assert.rejects(client.setQemu('web', 'gone'), { code: 'qemu-missing', message: /nowhere/ });
  await assert.rejects(client.setQemu('web', 'another'), { code: 'unsupported', message: /stasis\.yaml/ });
  const extra = { qemu: { build: 'another' } };
  await assert.rejects(lab.define('more', { system: 'bare', disks: 1, extra }), { code: 'unsupported' });
  const builds = (await client.doctor()).checks.find(({ name }) => name === 'other QEMUs');
  assert.deepEqual([builds?.status, /other: \d+\..*gone: /.test(builds?.message ?? '')], ['degraded', true]);
  assert.equal((await client.getGuest('web')).qemu.build, null);
});

/** With a build beside the usual one, which is that in an environment by which it is known, and one that is not there. */
async function labWithBuilds(): Promise<Lab> {
  const home = await mkdtemp(join(tmpdir(), 'stasis-'));
  const program = join(home, 'other-qemu');
  await writeFile(program, `#!/bin/sh\nOTHER_QEMU=yes exec ${(await findQemu()).path} "$@"\n`);
  await chmod(program, 0o755);
  await mkdir(join(home, 'config'));
  const builds = { other: program, gone: join(home, 'nowhere') };
  await writeFile(join(home, 'config/stasis.yaml'), JSON.stringify({ qemu: { builds } }));
  return Lab.open(home);
}

async function runsByOther(lab: Lab, guest: string): Promise<boolean> {
  const { pid } = await lab.client.getGuest(guest);
  return (await readFile(`/proc/${pid}/environ`, 'utf8')).split('\0').includes('OTHER_QEMU=yes');
}
