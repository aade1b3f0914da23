import assert from 'node:assert/strict';
import { open, readFile, rm } from 'node:fs/promises';
import { test } from 'node:test';
import fc from 'fast-check';
import { readBitmap, type MemoryBlock, type MemoryFile } from '../../src/qemu/memory/memory-file.ts';
import { removeStalePages, runsOf, writeBitmaps } from '../../src/qemu/memory/memory-pages.ts';
import { Lab } from './lab.ts';

const PAGE = 4096;
const PAGES_AT = 1 << 20;

/** Whole bytes of one kind are taken in one step, so there must be many. */
const byte = fc.oneof(fc.constantFrom(0, 0xff), fc.integer({ min: 0, max: 0xff }));
const bits = fc.array(byte, { minLength: 1, maxLength: 40 }).map((bytes) => Uint8Array.from(bytes));

test('runs of pages are all of them, apart from each other, and nothing else', () => {
  const property = fc.property(bits, fc.boolean(), fc.nat(), fc.nat(), (bitmap, set, one, other) => {
    const pages = bitmap.length * 8;
    const first = one % pages;
    const end = first + (other % (pages - first + 1));
    const runs = [...runsOf(bitmap, set, first, end)];
    const inRuns = runs.flatMap(({ start, end: stop }) => numbers(start, stop));
    const wanted = numbers(first, end).filter((page) => isSet(bitmap, page) === set);
    assert.deepEqual(inRuns, wanted);
    for (const [index, run] of runs.entries()) {
      assert.ok(run.start < run.end);
      assert.ok(run.end < (runs[index + 1]?.start ?? Infinity), 'what touches is one run');
    }
  });
  fc.assert(property, { numRuns: 2000 });
});

/** For each page of a block: whether its bit is set, and whether there are bytes in its place. */
const pageStates = fc.array(fc.record({ isPresent: fc.boolean(), hasBytes: fc.boolean() }), {
  minLength: 1,
  maxLength: 140,
});
const blocksOfPages = fc.array(pageStates, { minLength: 1, maxLength: 2 });
type PageStates = readonly { readonly isPresent: boolean; readonly hasBytes: boolean }[];

test('stale pages are removed, every other byte of the file stays', async () => {
  await using lab = await Lab.open();
  const property = fc.asyncProperty(blocksOfPages, async (states) => {
    const { path, memory } = await write(lab, states);
    const before = await readFile(path);
    const removedBytes = await removeStalePages(path, memory);
    const expected = Buffer.from(before);
    let staleBytes = 0;
    forEachPage(states, memory, ({ isPresent, hasBytes }, at) => {
      if (isPresent) return;
      expected.fill(0, at, at + PAGE);
      if (hasBytes) staleBytes += PAGE;
    });
    assert.ok(expected.equals(await readFile(path)));
    assert.ok(removedBytes >= staleBytes);
    await removeStalePages(path, memory);
    assert.ok(expected.equals(await readFile(path)), 'once more changes nothing');
  });
  await fc.assert(property, { numRuns: 100 });
});

test('bitmaps are written so that no byte is lost, and no page of the file changes', async () => {
  await using lab = await Lab.open();
  const property = fc.asyncProperty(blocksOfPages, async (states) => {
    const { path, memory } = await write(
      lab,
      states.map((block) => block.map(({ hasBytes }) => ({ hasBytes, isPresent: false }))),
    );
    const before = await readFile(path);
    await writeBitmaps(path, memory);
    const after = await readFile(path);
    await using file = await open(path);
    const bitmaps = await Promise.all(memory.blocks.map((block) => readBitmap(file, block)));
    forEachPage(states, memory, ({ hasBytes }, _at, page, block) => {
      if (hasBytes)
        assert.ok(isSet(bitmaps[block] ?? Buffer.alloc(0), page), `page ${page} of block ${block}`);
    });
    for (const [index, { bitmapOffset, sizeBytes }] of memory.blocks.entries()) {
      const bitmap = bitmaps[index] ?? Buffer.alloc(0);
      for (let page = sizeBytes / PAGE; page < bitmap.length * 8; page += 1)
        assert.ok(!isSet(bitmap, page), 'no page past the end of its block');
      before.copy(after, bitmapOffset, bitmapOffset, bitmapOffset + bitmap.length);
    }
    assert.ok(before.equals(after), 'nothing but bitmaps was written');
  });
  await fc.assert(property, { numRuns: 100 });
});

/** A file of blocks one behind the other, with something before, between and after that must not be touched. */
async function write(
  lab: Lab,
  states: readonly PageStates[],
): Promise<{ readonly path: string; readonly memory: MemoryFile }> {
  const path = lab.path('memory');
  await rm(path, { force: true });
  await using file = await open(path, 'wx');
  const put = async (text: string, at: number): Promise<void> => void (await file.write(text, at));
  const blocks: MemoryBlock[] = [];
  let offset = 0;
  for (const [index, pages] of states.entries()) {
    const block = {
      id: `block${index}`,
      sizeBytes: pages.length * PAGE,
      pageSizeBytes: PAGE,
      bitmapOffset: offset + 4096,
      pagesOffset: offset + PAGES_AT,
      pagesPresent: 0,
    };
    await put('before the bitmap', offset);
    const bitmap = Buffer.alloc(Math.ceil(pages.length / 64) * 8);
    for (const [page, { isPresent }] of pages.entries())
      if (isPresent) bitmap[page >> 3] = (bitmap[page >> 3] ?? 0) | (1 << (page & 7));
    await file.write(bitmap, 0, bitmap.length, block.bitmapOffset);
    for (const [page, { hasBytes }] of pages.entries())
      if (hasBytes) await put(`page ${page}`.padEnd(PAGE, '.'), block.pagesOffset + page * PAGE);
    offset = block.pagesOffset + block.sizeBytes;
    blocks.push(block);
  }
  await put('device state', offset);
  const size = offset + 'device state'.length;
  const state = {
    deviceStateOffset: offset,
    devicesEnd: size,
    deviceStateEnd: size,
    devices: [],
    states: [],
  };
  return { path, memory: { machineType: 'any', ramSection: 1, blocks, ...state } };
}

function forEachPage(
  states: readonly PageStates[],
  { blocks }: MemoryFile,
  visit: (state: PageStates[number], at: number, page: number, block: number) => void,
): void {
  for (const [block, pages] of states.entries())
    for (const [page, state] of pages.entries())
      visit(state, (blocks[block]?.pagesOffset ?? 0) + page * PAGE, page, block);
}

function isSet(bitmap: Uint8Array, page: number): boolean {
  return (((bitmap[page >> 3] ?? 0) >> (page & 7)) & 1) === 1;
}

function numbers(first: number, end: number): number[] {
  return Array.from({ length: end - first }, (_, index) => first + index);
}
