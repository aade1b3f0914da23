import assert from 'node:assert/strict';
import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { crowd } from '../bench/crowd.ts';
import { Lab } from './support/lab.ts';

test('hundreds of images are listed with their place in the tree, in one request', async () => {
  const home = await mkdtemp(join(tmpdir(), 'stasis-crowd-'));
  await crowd(home, 5, 500);
  await using lab = await Lab.open(home);
  const images = await lab.client.listSaveImages();
  assert.equal(images.length, 500);
  for (const image of images) {
    const number = Number(image.name.slice('hourly-'.length));
    assert.equal(image.parent, number === 0 ? null : `hourly-${number - 1}`);
    assert.deepEqual(image.disks.map(({ name }) => name).toSorted(), ['data', 'root']);
    assert.equal(image.current, number === 99);
  }
  const [guest] = await lab.client.listGuests();
  assert.deepEqual(
    { images: guest?.images, lastImage: guest?.lastImage, layers: guest?.disks.map(({ layers }) => layers) },
    { images: 100, lastImage: 'hourly-99', layers: [101, 101] },
  );
});
