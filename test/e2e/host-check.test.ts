/** What the preflight says of images and guests, held against what QEMU really does. */
import assert from 'node:assert/strict';
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
