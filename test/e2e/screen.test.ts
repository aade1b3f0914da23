/** The picture of the screen that an image has. */
import assert from 'node:assert/strict';
import { readFile, readdir } from 'node:fs/promises';
import { dirname } from 'node:path';
import { test } from 'node:test';
import { PNG } from 'pngjs';
import { Lab } from '../support/lab.ts';

test('an image of a guest with a display has a picture of it, live or stopped; one without has none', async () => {
  await using lab = await Lab.create();
  await using _ = await lab.running('web1', { system: 'bare', disks: 1, extra: { graphics: 'vnc' } });
  const live = await lab.client.createSaveImage('web1', { name: 'live', live: true, method: 'precopy' });
  const stopped = await lab.client.createSaveImage('web1');
  await lab.recordsWritten();
  for (const { screenFile, memoryFile, name } of [live, stopped]) {
    const { width, height, data } = PNG.sync.read(await readFile(screenFile ?? ''));
    assert.ok(width >= 640 && height >= 350, `${width}×${height}`);
    const colors = new Set<number>();
    for (let at = 0; at < data.length; at += 4) colors.add(data.readUInt32BE(at));
    assert.ok(colors.size > 1, `${name}: the firmware's text is on it`);
    assert.deepEqual((await readdir(dirname(memoryFile))).toSorted(), [
      'manifest.json',
      'memory',
      'screen.png',
    ]);
  }
  assert.match((await lab.cli(['info', 'web1', 'live'])).stdout, new RegExp(`screen +${live.screenFile}`));

  await lab.client.start('web1');
  await lab.client.deleteSaveImage('web1', 'live');
  const other = await lab.running('web2', { system: 'bare', disks: 1 });
  await other.close();
  assert.equal(
    (await lab.client.createSaveImage('web2', { live: true, method: 'precopy' })).screenFile,
    null,
  );
  const operations = await lab.client.listOperations();
  assert.deepEqual(
    operations.flatMap(({ warnings }) => warnings),
    [],
  );
  await lab.client.deleteSaveImage('web2');
  assert.deepEqual(await lab.files(), [], 'a picture goes with its image');
});
