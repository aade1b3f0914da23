/** One life of a guest on every kind of storage that can be had here: the same images, whatever holds its disks. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import { describe, test } from 'node:test';
import { promisify } from 'node:util';
import { GROUNDS, type GroundKind } from '../support/grounds.ts';
import { Lab, testBoot } from '../support/lab.ts';
import {
  besideDisk,
  changeContent,
  checkHousekeeping,
  checkImages,
  contentOf,
  type Content,
} from '../support/rules.ts';

const run = promisify(execFile);
const GUEST = 'web1';

describe('a guest whose disks are', () => {
  for (const kind of GROUNDS) test(kind.name, { skip: kind.skip, timeout: 300_000 }, () => live(kind));
});

async function live(kind: GroundKind): Promise<void> {
  await using lab = await Lab.on(kind);
  const { client } = lab;
  {
    await using witness = await lab.running(GUEST);
    await witness.fill(5, 8);
  }
  const { disks, uuid } = await client.getGuest(GUEST);
  assert.deepEqual(
    disks.map(({ driver }) => driver),
    [kind.driver, kind.driver],
  );
  const places = disks.map(({ path }) => besideDisk(path, uuid));

  // Images while the guest writes to both disks: the counter in memory and on disk tells whether they are of one instant.
  const expected = new Map<string, Content>();
  for (const [index, name] of ['a', 'b', 'c'].entries()) {
    expected.set(name, await changeContent(lab, GUEST, 10 + index));
    await client.createSaveImage(GUEST, { name, live: true });
  }
  const present = await changeContent(lab, GUEST, 20);
  if (kind.driver === 'reflink') await checkCopies(lab, places);

  // A clone is its own, and outlives the image.
  await client.restoreSaveImage(GUEST, 'b', { asNewGuest: 'copy' });
  assert.deepEqual(await contentOf(lab, 'copy'), expected.get('b'));
  const cloned = await changeContent(lab, 'copy', 30);
  await client.deleteSaveImage(GUEST, 'b');
  expected.delete('b');
  assert.deepEqual(await contentOf(lab, GUEST), present, 'nobody noticed the delete');
  assert.deepEqual(await contentOf(lab, 'copy'), cloned);
  await client.createSaveImage('copy', { name: 'own', live: true });
  await changeContent(lab, 'copy', 31);
  await client.restoreSaveImage('copy', 'own');
  assert.deepEqual(await contentOf(lab, 'copy'), cloned);
  await client.stop('copy');
  await client.undefineGuest('copy', { deleteImages: true });

  await checkImages(lab, GUEST, expected);
  const last = await changeContent(lab, GUEST, 40);
  await client.createSaveImage(GUEST);
  await client.start(GUEST);
  assert.deepEqual(await contentOf(lab, GUEST), last, 'suspended and resumed');
  await checkHousekeeping(lab, GUEST);
  await client.restoreSaveImage(GUEST, 'a', { delete: true });
  assert.deepEqual(await contentOf(lab, GUEST), expected.get('a'));
  expected.delete('a');
  const final = await changeContent(lab, GUEST, 50);
  await client.stop(GUEST);
  await checkHousekeeping(lab, GUEST);

  // What it wrote is where the user put it, and nothing else is left.
  await client.undefineGuest(GUEST, { deleteImages: true });
  assert.deepEqual(await lab.files(), []);
  for (const place of places) assert.ok(!existsSync(dirname(place)), 'nothing is left beside the disk');
  for (const { path, format } of disks)
    if (format === 'qcow2') await run('qemu-img', ['check', '-q', '-f', 'qcow2', path]);
  await client.defineGuest({
    name: 'again',
    memory: '128MiB',
    accelerator: 'tcg',
    boot: testBoot(),
    disks: disks.map(({ name, path, format }) => ({ name, path, format })),
  });
  await client.start('again');
  await using witness = await lab.witness('again');
  assert.equal((await witness.read('vda', 16, 2)).checksum, final.disk);
}

/** Every image has layers of its own, whole and clean, and the guest still writes to what it wrote to at first. */
async function checkCopies(lab: Lab, places: readonly string[]): Promise<void> {
  const { disks } = await lab.client.getGuest(GUEST);
  for (const { layers, head, path } of disks) {
    assert.equal(layers, 1);
    assert.equal(head, path);
  }
  const images = await lab.client.listSaveImages(GUEST);
  const pinned = images.flatMap((image) => image.disks);
  assert.equal(new Set(pinned.map(({ layer }) => layer)).size, images.length * disks.length);
  for (const { layer, format } of pinned) {
    assert.ok(places.includes(dirname(layer)), `${basename(layer)} is beside the disk`);
    if (format === 'qcow2') await run('qemu-img', ['check', '-q', '-f', 'qcow2', layer]);
  }
}
