/** What a capture holds of a TPM, read from the midst of what QEMU wrote. */
import assert from 'node:assert/strict';
import { mkdtempDisposable, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { u32 } from '../../src/qemu/memory/migration-stream.ts';
import { readTpmState, type TpmBlob } from '../../src/qemu/tpm-state.ts';

/** As QEMU writes it: the head of a section, and three blobs. */
function section(blobs: readonly TpmBlob[]): Buffer {
  const head = [Buffer.from([4]), u32(7), Buffer.from([12]), Buffer.from('tpm-emulator'), u32(0), u32(0)];
  return Buffer.concat([
    ...head,
    ...blobs.flatMap(({ flags, data }) => [u32(flags), u32(data.length), data]),
  ]);
}

const BYTES = fc.uint8Array({ maxLength: 50 }).map((bytes) => Buffer.from(bytes));
const BLOB = fc.record({ flags: fc.nat(2 ** 32 - 1), data: BYTES }, { noNullPrototype: true });

test('the state of a TPM is read whole, or said to be missing', async () => {
  await using directory = await mkdtempDisposable(join(tmpdir(), 'stasis-tpm-'));
  const path = join(directory.path, 'memory');
  const read = async (before: Buffer, states: Buffer, after: Buffer) => {
    await writeFile(path, Buffer.concat([before, states, after]));
    return readTpmState(path, {
      deviceStateOffset: before.length,
      devicesEnd: before.length + states.length,
    });
  };
  await fc.assert(
    fc.asyncProperty(
      fc.tuple(BLOB, BLOB, BLOB),
      fc.tuple(BYTES, BYTES, BYTES),
      fc.nat(99),
      async (blobs, [before, between, after], cut) => {
        const states = Buffer.concat([between, section(blobs)]);
        assert.deepEqual(await read(before, states, after), blobs);
        const short = states.subarray(0, Math.floor((states.length * cut) / 100));
        await assert.rejects(read(before, short, after), { code: 'image-damaged' });
      },
    ),
    { numRuns: 50 },
  );
});
