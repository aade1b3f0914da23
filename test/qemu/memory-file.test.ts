import assert from 'node:assert/strict';
import { open, readFile, truncate, writeFile } from 'node:fs/promises';
import { after, before, describe, test } from 'node:test';
import fc from 'fast-check';
import { StasisError } from '../../src/errors.ts';
import { stopped } from '../../src/qemu/capture/stopped.ts';
import { readMemoryFile, verifyMemoryFile, type MemoryFile } from '../../src/qemu/memory/memory-file.ts';
import { STREAM_OFFSET } from '../../src/qemu/migration.ts';
import { instantOf } from './dirtier.ts';
import { Lab, MEMORY_BYTES } from './lab.ts';

const EXPECTED = { offset: STREAM_OFFSET, machineType: 'pc-q35-10.0', memoryBytes: MEMORY_BYTES };

describe('the memory file of a real capture', () => {
  let lab: Lab;
  let path: string;
  let memory: MemoryFile;

  before(async () => {
    lab = await Lab.open();
    path = lab.path('memory');
    const { qmp } = await lab.launch('guest');
    await stopped.capture({ qmp, file: path, onPaused: async () => undefined });
    await qmp.execute('quit');
    memory = await verifyMemoryFile(path, EXPECTED);
  });
  after(() => lab[Symbol.asyncDispose]());

  test('is told as it is', async () => {
    assert.equal(memory.machineType, 'pc-q35-10.0');
    assert.equal(memory.blocks[0]?.id, 'pc.ram');
    assert.equal(memory.blocks[0]?.sizeBytes, MEMORY_BYTES);
    assert.ok(memory.devices.includes('cpu'));
    assert.ok(memory.deviceStateOffset < memory.deviceStateEnd);
    const { pagesOffset } = memory.blocks[0];
    const file = await open(path);
    const pages = Buffer.alloc(MEMORY_BYTES);
    await file.read(pages, 0, MEMORY_BYTES, pagesOffset);
    await file.close();
    assert.ok(instantOf(pages) >= 0, 'the pages are where the file says');
  });

  test("of another guest isn't taken for this one's", async () => {
    const refused = (expected: Partial<typeof EXPECTED & { mainBlock: string }>): Promise<void> =>
      assert.rejects(verifyMemoryFile(path, { ...EXPECTED, ...expected }), { code: 'image-damaged' });
    await refused({ machineType: 'pc-q35-9.2' });
    await refused({ memoryBytes: MEMORY_BYTES * 2 });
    await refused({ mainBlock: 'other.ram' });
    await refused({ offset: 0 });
  });

  test('with an empty bitmap is refused, as a background capture leaves it', async () => {
    const { bitmapOffset = 0, sizeBytes = 0, pageSizeBytes = 1 } = memory.blocks[0] ?? {};
    await withBytes(path, bitmapOffset, Buffer.alloc(sizeBytes / pageSizeBytes / 8), () =>
      assert.rejects(verifyMemoryFile(path, EXPECTED), { code: 'image-damaged', message: /zero/ }),
    );
  });

  test('cut anywhere is refused', async () => {
    const head = await readFile(path);
    const cut = lab.path('cut');
    await writeFile(cut, head);
    const { deviceStateEnd: end, deviceStateOffset: devices } = memory;
    for (const length of [
      end - 1,
      end - 5000,
      devices + 1,
      devices,
      devices - 1,
      1 << 20,
      5000,
      4100,
      4096,
      0,
    ]) {
      await truncate(cut, length);
      await assert.rejects(verifyMemoryFile(cut, EXPECTED), { code: 'image-damaged' }, `cut at ${length}`);
    }
  });

  test('with any bytes changed is read or refused: no other error, no hang', async () => {
    const structure = fc.oneof(
      fc.integer({ min: STREAM_OFFSET, max: STREAM_OFFSET + 400 }),
      ...memory.blocks.map(({ bitmapOffset }) =>
        fc.integer({ min: bitmapOffset - 64, max: bitmapOffset + 16 }),
      ),
      fc.integer({ min: memory.deviceStateOffset - 64, max: memory.deviceStateOffset + 16 }),
      fc.integer({ min: memory.deviceStateEnd - 50_000, max: memory.deviceStateEnd - 8 }),
    );
    const bytes = fc.uint8Array({ minLength: 1, maxLength: 8 });
    const property = fc.asyncProperty(structure, bytes, async (at, change) => {
      await withBytes(path, at, Buffer.from(change), () => readOrRefuse(path));
    });
    await fc.assert(property, { numRuns: 300 });
  });
});

test('a file of any bytes is read or refused: no other error, no hang', async () => {
  await using lab = await Lab.open();
  const header = Buffer.from('5145564d00000003070000000b70632d7133352d31302e30', 'hex');
  const contents = fc.tuple(fc.boolean(), fc.uint8Array({ maxLength: 300 }));
  const property = fc.asyncProperty(contents, async ([hasHeader, bytes]) => {
    await writeFile(lab.path('any'), Buffer.concat([hasHeader ? header : Buffer.alloc(0), bytes]));
    await readOrRefuse(lab.path('any'), 0);
  });
  await fc.assert(property, { numRuns: 300 });
});

async function readOrRefuse(path: string, offset = STREAM_OFFSET): Promise<void> {
  try {
    await readMemoryFile(path, offset);
  } catch (error) {
    assert.ok(
      error instanceof StasisError && error.code === 'image-damaged',
      `not an error of ours: ${String(error)}`,
    );
  }
}

/** Runs `body` while the file has other bytes in one place. */
async function withBytes(path: string, at: number, bytes: Buffer, body: () => Promise<void>): Promise<void> {
  await using file = await open(path, 'r+');
  const original = Buffer.alloc(bytes.length);
  await file.read(original, 0, bytes.length, at);
  await file.write(bytes, 0, bytes.length, at);
  try {
    await body();
  } finally {
    await file.write(original, 0, bytes.length, at);
  }
}
