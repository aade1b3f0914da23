import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { test } from 'node:test';
import type { LayerFile, Place } from '../../src/storage/driver.ts';
import { listVolumes } from '../../src/storage/lvm-volumes.ts';
import { lvm } from '../../src/storage/lvm.ts';

// Run by lvm.test.ts inside the guest with LVM: random histories of one thin disk, held against a model of its content.

const GROUP = 'histories';
const BLOCKS = 6;
const BLOCK_BYTES = 1024 ** 2;
const SEED = Number(process.env['STASIS_SEED'] ?? 1);
const STEPS = Number(process.env['STASIS_STEPS'] ?? 30);

type Content = readonly number[];

/** Small numbers from a seed: a linear congruential generator, as in Numerical Recipes. */
function randomOf(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

async function write(layer: LayerFile, block: number, value: number): Promise<void> {
  await using file = await open(layer.path, 'r+');
  const data = Buffer.alloc(4096);
  data.writeUInt32LE(value);
  await file.write(data, 0, data.length, block * BLOCK_BYTES);
  await file.sync();
}

async function contentOf(layer: LayerFile): Promise<Content> {
  await using file = await open(layer.path, 'r');
  const content: number[] = [];
  for (let block = 0; block < BLOCKS; block += 1) {
    const { buffer } = await file.read(Buffer.alloc(4), 0, 4, block * BLOCK_BYTES);
    content.push(buffer.readUInt32LE());
  }
  return content;
}

test(`after ${STEPS} random steps (seed ${SEED}) every copy reads as it was taken, and all goes back`, async () => {
  execFileSync('vgcreate', ['-qq', GROUP, '/dev/ubde']);
  execFileSync('lvcreate', ['-qq', '-V', '16M', '-n', 'disk', '-L', '256M', '-T', `${GROUP}/pool`], {
    stdio: 'pipe',
  });
  const path = `/dev/${GROUP}/disk`;
  const root: LayerFile = {
    ...{ id: 'root', path, format: 'raw', sizeBytes: 16 << 20, parent: null, driver: 'lvm' },
  };
  const place: Place = { disk: 'disk', guest: '1-2', directory: tmpdir(), root: path };
  const random = randomOf(SEED);
  const copies: { readonly layer: LayerFile; readonly content: Content }[] = [];
  let head = root;
  let content: Content = [0, 0, 0, 0, 0, 0];

  for (let step = 1; step <= STEPS; step += 1) {
    const any = copies[random(Math.max(1, copies.length))];
    const action = random(8);
    if (action < 4) {
      const block = random(BLOCKS);
      await write(head, block, step);
      content = content.with(block, step);
    } else if (action < 6 || any === undefined) {
      const copy = await lvm.planCopy?.(head, place);
      assert.ok(copy !== undefined);
      await lvm.make(copy, head);
      await lvm.settle(copy);
      copies.push({ layer: copy, content });
    } else if (action === 6) {
      const next = await lvm.planHead(any.layer, place);
      await lvm.make(next, any.layer);
      if (head !== root) await lvm.remove(head);
      [head, content] = [next, any.content];
    } else {
      await lvm.remove(any.layer);
      copies.splice(copies.indexOf(any), 1);
    }
    assert.deepEqual(await contentOf(head), content, `head after step ${step}`);
  }
  for (const copy of copies) assert.deepEqual(await contentOf(copy.layer), copy.content);

  for (const { layer } of copies) await lvm.remove(layer);
  if (head !== root) await lvm.replaceRoot(head, root, await lvm.identity(head));
  assert.deepEqual(await contentOf(root), content);
  assert.deepEqual((await listVolumes(GROUP)).map(({ name }) => name).toSorted(), ['disk', 'pool']);
});
