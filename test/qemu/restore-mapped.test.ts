import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { rm, truncate } from 'node:fs/promises';
import { pipeline } from 'node:stream/promises';
import { test } from 'node:test';
import { precopy } from '../../src/qemu/capture/precopy.ts';
import { eager } from '../../src/qemu/restore/eager.ts';
import { mapped } from '../../src/qemu/restore/mapped.ts';
import { isRunning, resumeGuest } from '../../src/qemu/process/run-state.ts';
import { instantOf } from './dirtier.ts';
import { Lab, memoryOf, savedMemory } from './lab.ts';

const CAPTURE = { onPaused: async () => undefined };

test('mapped: guests of one file have its memory, change only their own, and can be saved live again', async () => {
  await using lab = await Lab.open();
  const source = await lab.launch('source');
  const file = lab.path('memory, with a comma');
  let saved: Buffer = Buffer.alloc(0);
  await precopy.capture({
    ...CAPTURE,
    qmp: source.qmp,
    file,
    onPaused: async () => {
      saved = await memoryOf(source.qmp, lab.path('saved'));
    },
  });
  const image = await savedMemory(file);
  const before = await digest(file);

  const one = await lab.launch('one', mapped.machineArgs(image));
  const two = await lab.launch('two', mapped.machineArgs(image));
  for (const target of [one, two]) {
    await mapped.load(target, image);
    assert.equal(await isRunning(target.qmp), false);
    assert.ok(saved.equals(await memoryOf(target.qmp, lab.path('loaded'))), 'the mapped memory differs');
  }
  await resumeGuest(one.qmp);
  const again = lab.path('again');
  await precopy.capture({ ...CAPTURE, qmp: one.qmp, file: again });
  assert.equal(await digest(file), before, 'the image was written to');
  assert.ok(saved.equals(await memoryOf(two.qmp, lab.path('untouched'))), 'another guest sees the changes');

  await rm(file);
  const loaded = await lab.launch('loaded', eager.machineArgs(await savedMemory(again)));
  await eager.load(loaded, await savedMemory(again));
  assert.ok(instantOf(await memoryOf(loaded.qmp, lab.path('last'))) >= instantOf(saved));
});

test('mapped: an image that can not be read any more ends QEMU by SIGBUS', async () => {
  await using lab = await Lab.open();
  const source = await lab.launch('source');
  const file = lab.path('memory');
  await precopy.capture({ ...CAPTURE, qmp: source.qmp, file });
  const image = await savedMemory(file);
  const target = await lab.launch('target', mapped.machineArgs(image));
  await mapped.load(target, image);
  await truncate(file, image.memory.blocks[0]?.pagesOffset ?? 0);
  await target.qmp.execute('cont').catch(() => undefined); // it may be gone before it answers
  assert.equal((await target.exited).signal, 'SIGBUS');
});

async function digest(file: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(file), hash);
  return hash.digest('hex');
}

test('the catch-up of missed clock ticks is no part of an image: those taken without it load with it', async () => {
  await using lab = await Lab.open();
  const source = await lab.launch('source', ['-rtc', 'base=utc']);
  const file = lab.path('memory');
  await precopy.capture({ ...CAPTURE, qmp: source.qmp, file });
  const image = await savedMemory(file);
  for (const method of [eager, mapped]) {
    const withCatchUp = ['-rtc', 'base=utc,driftfix=slew', ...method.machineArgs(image)];
    const target = await lab.launch(method.name, withCatchUp);
    await method.load(target, image);
    await resumeGuest(target.qmp);
    await target.qmp.execute('rtc-reset-reinjection');
    assert.equal(await isRunning(target.qmp), true);
  }
});
