/** The checksum of a file says what it reads as, however it is stored, and where two files differ. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdtemp, open, readFile, rm, truncate } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import fc from 'fast-check';
import { readPieces } from '../../src/storage/file-pieces.ts';
import { sumFile } from '../../src/storage/file-sum-process.ts';
import { differences, PIECE_BYTES, SumBuilder, type FileSum } from '../../src/storage/file-sum.ts';
import { randomBytes } from 'node:crypto';

let directory: string;
before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'stasis-sum-'));
});
after(() => rm(directory, { recursive: true, force: true }));

/** Parts of data in a file of some pieces; what is between them is a hole in one file, and written zeros in the other. */
const layout = fc.record({
  sizeBytes: fc.integer({ min: 0, max: 5 * PIECE_BYTES }),
  parts: fc.array(
    fc.record({
      at: fc.integer({ min: 0, max: 5 * PIECE_BYTES }),
      length: fc.integer({ min: 1, max: 200_000 }),
      byte: fc.integer({ min: 0, max: 255 }),
    }),
    { maxLength: 4 },
  ),
});

test('sparse or written out, a file has one checksum: that of the format as it is described', async () => {
  const [sparse, dense] = [join(directory, 'sparse'), join(directory, 'dense')];
  await fc.assert(
    fc.asyncProperty(layout, async ({ sizeBytes, parts }) => {
      const content = Buffer.alloc(sizeBytes);
      {
        await using file = await open(sparse, 'w');
        await file.truncate(sizeBytes);
        for (const { at, length, byte } of parts) {
          const part = Buffer.alloc(Math.max(0, Math.min(length, sizeBytes - at)), byte);
          part.copy(content, Math.min(at, sizeBytes));
          if (part.length > 0) await file.write(part, 0, part.length, at);
        }
      }
      {
        await using file = await open(dense, 'w');
        await file.write(content);
      }
      assert.equal((await sumHere(sparse)).sha256, described(content));
      assert.equal((await sumHere(dense)).sha256, described(content));
    }),
    { numRuns: 25 },
  );
});

test('a file that differs has another checksum, and its pieces tell where', async () => {
  const path = join(directory, 'changing');
  const content = randomBytes(3 * PIECE_BYTES + 777);
  await write(path, content);
  const good = await sumHere(path);
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 0, max: content.length - 1 }), async (at) => {
      const changed = Buffer.from(content);
      changed[at] = (changed[at] ?? 0) ^ 1;
      await write(path, changed);
      const piece = Math.floor(at / PIECE_BYTES);
      assert.deepEqual(differences(good, await sumHere(path)), [
        { start: piece * PIECE_BYTES, end: Math.min((piece + 1) * PIECE_BYTES, content.length) },
      ]);
    }),
    { numRuns: 20 },
  );
  await write(path, content);
  assert.deepEqual(differences(good, await sumHere(path)), []);
  await truncate(path, PIECE_BYTES + 5);
  assert.deepEqual(differences(good, await sumHere(path)), [{ start: PIECE_BYTES, end: content.length }]);
  await truncate(path, content.length + 100);
  assert.deepEqual(differences(good, await sumHere(path)).at(-1)?.end, content.length + 100);
});

test('a process of its own comes to the same, gives up at once, and goes on where it was', async () => {
  const path = join(directory, 'large');
  await write(path, randomBytes(24 * PIECE_BYTES));
  await truncate(path, 40 * PIECE_BYTES + 3);
  const expected = await sumHere(path);
  const stop = new AbortController();
  let begun: SumBuilder | undefined;
  await assert.rejects(
    sumFile(path, {
      signal: stop.signal,
      bytesPerSecond: 4 * PIECE_BYTES,
      onBegun: (sum) => void (begun = sum),
      onProgress: (bytesDone) => bytesDone >= 4 * PIECE_BYTES && stop.abort(),
    }),
    { code: 'cancelled' },
  );
  const reached = begun?.nextPiece ?? 0;
  assert.ok(reached >= 4 && reached < 24, `it had come to piece ${reached}`);
  let first: number | undefined;
  const sum = await sumFile(path, { begun, onProgress: (done) => void (first ??= done) });
  assert.deepEqual(sum, expected);
  assert.ok((first ?? 0) >= 4 * PIECE_BYTES, 'it did not begin anew');
  await assert.rejects(sumFile(join(directory, 'none')), { code: 'disk-missing' });
});

async function write(path: string, content: Buffer): Promise<void> {
  await using file = await open(path, 'w');
  await file.write(content);
}

async function sumHere(path: string): Promise<FileSum> {
  let sum: SumBuilder | undefined;
  await readPieces(
    { path, fromPiece: 0 },
    {
      onSize: (sizeBytes) => void (sum = new SumBuilder(sizeBytes)),
      onPiece: (index, sha256) => sum?.add(index, sha256),
      onSkipped: (nextPiece) => sum?.skipTo(nextPiece),
    },
  );
  assert.ok(sum);
  assert.equal(sum.sizeBytes, (await readFile(path)).length);
  return sum.finish();
}

/** The format's description, word by word. */
function described(content: Buffer): string {
  const u64 = (value: number) => {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64BE(BigInt(value));
    return bytes;
  };
  const whole = createHash('sha256').update('stasis file sum 1\n').update(u64(content.length));
  for (let index = 0; index * PIECE_BYTES < content.length; index += 1) {
    const piece = content.subarray(index * PIECE_BYTES, (index + 1) * PIECE_BYTES);
    if (piece.some((byte) => byte !== 0))
      whole.update(u64(index)).update(createHash('sha256').update(piece).digest());
  }
  return whole.digest('hex');
}
