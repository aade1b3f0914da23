import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { StasisError } from '../../src/errors.ts';
import { shortString, u16, u32, u64 } from '../../src/qemu/memory/migration-stream.ts';
import { ReturnPath, type Reply } from '../../src/qemu/pager/postcopy-stream.ts';

const PAGE = 4096;
const BLOCKS = [
  { id: 'pc.ram', sizeBytes: 64 * PAGE },
  { id: 'vga.vram', sizeBytes: 100 * PAGE },
];

function message(type: number, contents: Buffer): Buffer {
  return Buffer.concat([u16(type), u16(contents.length), contents]);
}

function received(id: string, bitmap: Buffer): Buffer {
  const end = Buffer.from('0123456789abcdef', 'hex');
  return Buffer.concat([message(5, shortString(id)), u64(bitmap.length), bitmap, end]);
}

const CONVERSATION: readonly { bytes: Buffer; reply?: Reply }[] = [
  { bytes: message(2, u32(7)) },
  {
    bytes: received('vga.vram', Buffer.alloc(16, 0xa5)),
    reply: { kind: 'received', block: 'vga.vram', bitmap: Buffer.alloc(16, 0xa5) },
  },
  { bytes: message(6, u32(1)), reply: { kind: 'resumed' } },
  {
    bytes: message(3, Buffer.concat([u64(3 * PAGE), u32(PAGE), shortString('pc.ram')])),
    reply: { kind: 'pages', block: 'pc.ram', offset: 3 * PAGE, lengthBytes: PAGE },
  },
  {
    bytes: message(4, Buffer.concat([u64(62 * PAGE), u32(2 * PAGE)])),
    reply: { kind: 'pages', block: 'pc.ram', offset: 62 * PAGE, lengthBytes: 2 * PAGE },
  },
  { bytes: message(1, u32(0)), reply: { kind: 'shut', status: 0 } },
];

test('the return path is understood however it is cut into pieces', () => {
  const whole = Buffer.concat(CONVERSATION.map(({ bytes }) => bytes));
  const expected = CONVERSATION.flatMap(({ reply }) => (reply === undefined ? [] : [reply]));
  fc.assert(
    fc.property(fc.array(fc.nat(whole.length)), (cuts) => {
      const path = new ReturnPath(BLOCKS);
      const at = [0, ...cuts.toSorted((a, b) => a - b), whole.length];
      const replies = at.flatMap((start, index) => [
        ...path.push(whole.subarray(start, at[index + 1] ?? start)),
      ]);
      assert.deepEqual(replies, expected);
    }),
  );
});

test('foreign bytes on the return path are refused, and never ask for what is not there', () => {
  const type = fc.integer({ min: 0, max: 9 });
  const contents = fc.oneof(
    fc.uint8Array({ maxLength: 40 }),
    fc
      .tuple(
        fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
        fc.nat(1 << 20),
        fc.constantFrom('pc.ram', 'rom', ''),
      )
      .map(([offset, length, id]) => {
        const start = Buffer.alloc(8);
        start.writeBigUInt64BE(offset);
        return Buffer.concat([start, u32(length), shortString(id)]);
      }),
  );
  const piece = fc.oneof(
    fc.tuple(type, contents).map(([kind, bytes]) => message(kind, Buffer.from(bytes))),
    fc.uint8Array({ maxLength: 64 }).map((bytes) => Buffer.from(bytes)),
    fc.constantFrom(...CONVERSATION.map(({ bytes }) => bytes)),
  );
  fc.assert(
    fc.property(fc.array(piece), (pieces) => {
      const path = new ReturnPath(BLOCKS);
      try {
        for (const bytes of pieces) for (const reply of path.push(bytes)) checkReply(reply);
      } catch (error) {
        assert.ok(error instanceof StasisError && error.code === 'qemu-failed', String(error));
      }
    }),
    { numRuns: 2000 },
  );
});

test('what QEMU never says is refused at once, whether the rest of it comes or not', () => {
  for (const [type, length] of [
    [0, 4],
    [8, 0],
    [4, 13],
    [3, 600],
    [5, 1],
    [6, 0],
  ] as const) {
    const start = Buffer.concat([u16(type), u16(length)]);
    assert.throws(() => [...new ReturnPath(BLOCKS).push(start)], { code: 'qemu-failed' });
  }
  const otherSize = Buffer.concat([message(5, shortString('pc.ram')), u64(2 ** 40)]);
  assert.throws(() => [...new ReturnPath(BLOCKS).push(otherSize)], { message: /another size/ });
});

function checkReply(reply: Reply): void {
  if (reply.kind !== 'pages') return;
  const block = BLOCKS.find(({ id }) => id === reply.block);
  assert.ok(block !== undefined && reply.offset >= 0 && reply.lengthBytes > 0);
  assert.ok(reply.offset % PAGE === 0 && reply.offset + reply.lengthBytes <= block.sizeBytes);
}
