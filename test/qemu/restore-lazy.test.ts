import assert from 'node:assert/strict';
import { test } from 'node:test';
import { precopy } from '../../src/qemu/capture-precopy.ts';
import { memoryArrived } from '../../src/qemu/memory-arrival.ts';
import { readPagerStatus } from '../../src/qemu/pager-files.ts';
import { lazy } from '../../src/qemu/restore-lazy.ts';
import { Lab, memoryOf, savedMemory } from './lab.ts';

const CAPTURE = { timeLimitMs: 100, onPaused: async () => undefined };

test('lazy: all of the memory arrives', async () => {
  await using lab = await Lab.open();
  const source = await lab.launch('source');
  const file = lab.path('memory');
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
  const target = await lab.launch('target', lazy.machineArgs(image));
  const t = performance.now();
  await memoryArrived(target);
  assert.ok(saved.equals(await memoryOf(target.qmp, lab.path('loaded'))), 'the memory differs');
});
