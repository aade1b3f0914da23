import assert from 'node:assert/strict';
import { test } from 'node:test';
import { background, whyNotBackground } from '../../src/qemu/capture/background.ts';
import { precopy } from '../../src/qemu/capture/precopy.ts';
import { verifyMemoryFile } from '../../src/qemu/memory/memory-file.ts';
import { STREAM_OFFSET } from '../../src/qemu/migration.ts';
import { eager } from '../../src/qemu/restore/eager.ts';
import { mapped } from '../../src/qemu/restore/mapped.ts';
import { isRunning } from '../../src/qemu/process/run-state.ts';
import { instantOf } from './dirtier.ts';
import { Lab, memoryOf, MEMORY_BYTES, savedMemory } from './lab.ts';

const EXPECTED = { offset: STREAM_OFFSET, machineType: 'pc-q35-10.0', memoryBytes: MEMORY_BYTES };

test('background: the memory of the instant of the request, while the guest writes as fast as it can', async () => {
  await using lab = await Lab.open();
  const { qmp } = await lab.launch('source');
  for (const name of ['one', 'two', 'three']) {
    let saved: Buffer = Buffer.alloc(0);
    const file = lab.path(name);
    const result = await background.capture({
      qmp,
      file,
      onPaused: async () => {
        saved = await memoryOf(qmp, lab.path('saved'));
      },
    });
    assert.ok((result.pause?.pauseMs ?? 0) > 0);
    assert.equal(await isRunning(qmp), true);
    await verifyMemoryFile(file, EXPECTED);
    for (const method of [eager, mapped]) {
      const image = await savedMemory(file);
      const target = await lab.launch(`${name}-${method.name}`, method.machineArgs(image));
      await method.load(target, image);
      const loaded = await memoryOf(target.qmp, lab.path('loaded'));
      instantOf(loaded);
      assert.ok(saved.equals(loaded), `the memory differs, loaded ${method.name}`);
      await target.qmp.execute('quit');
    }
  }
  // No capability is left on: another method works at once.
  const file = lab.path('precopy');
  await precopy.capture({ qmp, file, onPaused: async () => undefined });
  await verifyMemoryFile(file, EXPECTED);
});

test('background: a guest whose memory is mapped from an image says why it can not be captured so', async () => {
  await using lab = await Lab.open();
  const { qmp } = await lab.launch('source');
  assert.equal(await whyNotBackground(qmp), undefined);
  const file = lab.path('memory');
  await background.capture({ qmp, file, onPaused: async () => undefined });
  const image = await savedMemory(file);
  const target = await lab.launch('target', mapped.machineArgs(image));
  await mapped.load(target, image);
  assert.match((await whyNotBackground(target.qmp)) ?? '', /mapped from an image/);
});
