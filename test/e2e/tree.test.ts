/** Trees of images: branches, deletion at every place, and chains that don't grow. Always proven by content. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Lab, testBoot } from '../support/lab.ts';
import {
  checkHousekeeping,
  checkImages,
  changeContent,
  contentOf,
  REGION,
  type Content,
} from '../support/rules.ts';

const GUEST = 'web1';

/** Grows a tree on one guest: each image is taken live, after changes, and its content remembered. */
class Gardener {
  readonly lab: Lab;
  readonly expected = new Map<string, Content>();
  #seed = 1;

  constructor(lab: Lab) {
    this.lab = lab;
  }

  change(): Promise<Content> {
    this.#seed += 1;
    return changeContent(this.lab, GUEST, this.#seed);
  }

  async save(name: string): Promise<void> {
    const content = await this.change();
    await this.lab.client.createSaveImage(GUEST, { name, live: true });
    this.expected.set(name, content);
  }

  async delete(name: string): Promise<void> {
    await this.lab.client.deleteSaveImage(GUEST, name);
    this.expected.delete(name);
    await checkHousekeeping(this.lab, GUEST);
  }
}

/**
 * root ── a ── b ── c
 *         └─── d ── e (the guest is here)
 */
async function plant(format: 'qcow2' | 'raw'): Promise<Gardener> {
  const lab = await Lab.create();
  const gardener = new Gardener(lab);
  await using witness = await lab.running(GUEST, { system: 'bare', format });
  await witness.fill(5, 8);
  for (const name of ['a', 'b', 'c']) await gardener.save(name);
  await lab.client.restoreSaveImage(GUEST, 'a');
  for (const name of ['d', 'e']) await gardener.save(name);
  return gardener;
}

for (const format of ['qcow2', 'raw'] as const) {
  for (const running of [true, false]) {
    test(`root, middle and leaf of a tree over ${format} disks are deleted while the guest is ${running ? 'running' : 'stopped'}`, async () => {
      const gardener = await plant(format);
      await using lab = gardener.lab;
      const parents = Object.fromEntries(
        (await lab.client.listSaveImages(GUEST)).map(({ name, parent }) => [name, parent]),
      );
      assert.deepEqual(parents, { a: null, b: 'a', c: 'b', d: 'a', e: 'd' });
      const present = await contentOf(lab, GUEST);

      if (!running) await lab.client.stop(GUEST);
      for (const name of ['a', 'b', 'e']) await gardener.delete(name);
      if (running)
        assert.deepEqual(await contentOf(lab, GUEST), present, 'the running guest noticed nothing');

      assert.deepEqual(
        (await lab.client.listSaveImages(GUEST)).map(({ name, parent }) => `${name} ${parent}`),
        ['c null', 'd null'],
      );
      await checkImages(lab, GUEST, gardener.expected);
      for (const name of ['c', 'd']) await gardener.delete(name);
      const { disks } = await lab.client.getGuest(GUEST);
      assert.deepEqual(
        disks.map(({ layers }) => layers),
        [1, 1],
        'nothing is left but the files the user brought',
      );
      assert.deepEqual(await lab.files(), []);
    });
  }
}

test('a guest that is undefined leaves with what it wrote in the disks it came with', async () => {
  await using lab = await Lab.create();
  const witness = await lab.running(GUEST);
  await lab.client.createSaveImage(GUEST, { name: 'first', live: true });
  const written = await witness.write(REGION.disk, REGION.offsetMiB, REGION.mib, 77);
  await witness.close();
  await lab.client.stop(GUEST);
  await lab.client.undefineGuest(GUEST, { deleteImages: true });
  assert.deepEqual(await lab.client.listGuests(), []);
  assert.deepEqual(await lab.files(), []);

  await lab.client.defineGuest({
    name: 'again',
    memory: '128MiB',
    accelerator: 'tcg',
    boot: testBoot(),
    disks: [{ name: 'disk0', path: `${lab.home}/${GUEST}-0.qcow2`, format: 'qcow2' }],
  });
  await lab.client.start('again');
  const again = await lab.witness('again');
  assert.equal((await again.read(REGION.disk, REGION.offsetMiB, REGION.mib)).checksum, written.checksum);
});

test('twenty times suspended and resumed, the chain is as long as before and not a byte is lost', async () => {
  await using lab = await Lab.create();
  const witness = await lab.running(GUEST, { system: 'bare' });
  await witness.fill(9, 4);
  await witness.close();
  const before = await contentOf(lab, GUEST);
  for (let round = 0; round < 20; round += 1) {
    await lab.client.createSaveImage(GUEST);
    await lab.client.start(GUEST);
  }
  assert.deepEqual(await contentOf(lab, GUEST), before);
  const { disks } = await lab.client.getGuest(GUEST);
  assert.deepEqual(
    disks.map(({ layers }) => layers),
    [1, 1],
  );
  assert.deepEqual(await lab.client.listSaveImages(GUEST), []);
  assert.deepEqual(await lab.files(), []);
});

test('images of a guest that stands still, after a restore or after a live save of it, are deleted and their layers merged', async () => {
  const gardener = await plant('qcow2');
  await using lab = gardener.lab;
  const { client } = lab;
  await client.restoreSaveImage(GUEST, 'c', { paused: true });
  await client.deleteSaveImage(GUEST, 'b');
  await client.createSaveImage(GUEST, { name: 'now', live: true });
  await client.deleteSaveImage(GUEST, 'c');
  await client.deleteSaveImage(GUEST, 'now');
  await client.resume(GUEST);
  await checkHousekeeping(lab, GUEST);
  assert.deepEqual(await contentOf(lab, GUEST), gardener.expected.get('c'));
  for (const name of ['b', 'c']) gardener.expected.delete(name);
  await checkImages(lab, GUEST, gardener.expected);
});
