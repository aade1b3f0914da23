/**
 * What the source of a postcopy migration says to its destination, and hears from it: after QEMU's
 * `migration/savevm.c` (`enum qemu_vm_cmd`) and `migration/migration.c` (`enum mig_rp_message_type`). Pure.
 */
import { StasisError } from '../../errors.ts';
import type { MemoryFile } from '../memory/memory-file.ts';
import {
  command,
  PAGE_BYTES,
  ramSectionEnd,
  ramSectionStart,
  ramStart,
  SECTION,
  shortString,
  streamHeader,
  u32,
  u64,
  u8,
  type StreamBlock,
} from '../memory/migration-stream.ts';

const COMMAND = {
  openReturnPath: 1,
  advise: 3,
  listen: 4,
  run: 5,
  discard: 6,
  packaged: 7,
  resume: 9,
  receivedBitmap: 10,
} as const;

const REPLY = {
  shut: 1,
  pong: 2,
  pagesOf: 3,
  pages: 4,
  receivedBitmap: 5,
  resumed: 6,
  switchover: 7,
} as const;

/**
 * All that the destination needs before the guest may run, without one page. The device state travels as one
 * package behind "listen", so that what loading it touches can be asked for already.
 *
 * A discard must be among it, of whatever: without one QEMU prepares only after it has begun to listen, and
 * by that falls back into the state before; then pages are loaded in place, and it waits for itself.
 */
export function opening(memory: MemoryFile, blocks: readonly StreamBlock[], devices: Buffer): Buffer {
  const [first] = blocks;
  if (first === undefined) throw new StasisError('image-damaged', 'there is no block of memory');
  // The OR of all sizes of pages, blocks that are said to be of huge pages included.
  const pageSizes = blocks.reduce((sizes, { hugePageBytes = 0 }) => sizes | hugePageBytes, PAGE_BYTES);
  const packaged = Buffer.concat([command(COMMAND.listen), devices, command(COMMAND.run)]);
  return Buffer.concat([
    streamHeader(memory.machineType),
    command(COMMAND.openReturnPath),
    command(COMMAND.advise, Buffer.concat([u64(pageSizes), u64(PAGE_BYTES)])),
    ramStart(memory.ramSection, blocks),
    command(
      COMMAND.discard,
      Buffer.concat([u8(0), shortString(first.id), u8(0), u64(0), u64(first.hugePageBytes ?? PAGE_BYTES)]),
    ),
    command(COMMAND.packaged, u32(packaged.length)),
    packaged,
  ]);
}

/** Asks the destination of a broken migration which pages of these blocks it has: a `received` of each comes back. */
export function askForReceived(blocks: readonly StreamBlock[]): Buffer {
  return Buffer.concat(blocks.map(({ id }) => command(COMMAND.receivedBitmap, shortString(id))));
}

/** Lets a broken migration go on: `resumed` comes back, then once more all that its guest waits for. */
export function resume(): Buffer {
  return command(COMMAND.resume);
}

/** What comes after the last page. Pages that are asked for later still go by the channel for those. */
export function closing(ramSection: number): Buffer {
  return Buffer.concat([ramSectionStart(ramSection, 'last'), ramSectionEnd(ramSection), u8(SECTION.end)]);
}

export type Reply =
  | { readonly kind: 'pages'; readonly block: string; readonly offset: number; readonly lengthBytes: number }
  /** bit i & 7 of byte i >> 3 is page i */
  | { readonly kind: 'received'; readonly block: string; readonly bitmap: Buffer }
  | { readonly kind: 'resumed' }
  /** the destination is done, `status` 0, or has given up */
  | { readonly kind: 'shut'; readonly status: number };

const BITMAP_END = 0x0123456789abcdefn;

/**
 * Reads the return path, piece by piece as it arrives. Nobody vouches for it: a guest that has broken out into its
 * QEMU could write here.
 */
export class ReturnPath {
  readonly #blocks: ReadonlyMap<string, StreamBlock>;
  #bytes: Buffer = Buffer.alloc(0);
  /** the block of the request before, which the next one may leave out */
  #block: string | undefined;

  constructor(blocks: readonly StreamBlock[]) {
    this.#blocks = new Map(blocks.map((block) => [block.id, block]));
  }

  /** @throws StasisError `qemu-failed` for what QEMU doesn't say */
  *push(bytes: Buffer): Generator<Reply> {
    this.#bytes = this.#bytes.length === 0 ? bytes : Buffer.concat([this.#bytes, bytes]);
    for (;;) {
      const message = this.#message();
      if (message === undefined) return;
      this.#bytes = this.#bytes.subarray(message.lengthBytes);
      if (message.reply !== undefined) yield message.reply;
    }
  }

  /** The next message, if it is there whole. */
  #message(): { readonly reply: Reply | undefined; readonly lengthBytes: number } | undefined {
    const bytes = this.#bytes;
    if (bytes.length < 4) return undefined;
    const type = bytes.readUInt16BE(0);
    const body = { start: 4, end: 4 + bytes.readUInt16BE(2) };
    checkLength(type, body.end - body.start);
    if (bytes.length < body.end) return undefined;
    const contents = bytes.subarray(body.start, body.end);
    switch (type) {
      case REPLY.shut:
        return { reply: { kind: 'shut', status: contents.readUInt32BE() }, lengthBytes: body.end };
      case REPLY.pong:
      case REPLY.switchover:
        return { reply: undefined, lengthBytes: body.end };
      case REPLY.pagesOf:
      case REPLY.pages:
        return { reply: this.#pages(contents), lengthBytes: body.end };
      case REPLY.resumed:
        if (contents.readUInt32BE() !== 1) throw foreign('it does not resume');
        return { reply: { kind: 'resumed' }, lengthBytes: body.end };
      default:
        return this.#received(contents, body.end);
    }
  }

  #pages(contents: Buffer): Reply {
    if (contents.length > 12) this.#block = nameIn(contents.subarray(12));
    const block = this.#blocks.get(this.#block ?? '');
    if (block === undefined) throw foreign(`pages of no block we know, "${this.#block ?? ''}"`);
    const offset = Number(contents.readBigUInt64BE(0));
    const lengthBytes = contents.readUInt32BE(8);
    if (lengthBytes === 0 || offset % PAGE_BYTES !== 0 || lengthBytes % PAGE_BYTES !== 0)
      throw foreign(`a part of a page (${lengthBytes} bytes at ${offset})`);
    if (offset + lengthBytes > block.sizeBytes) throw foreign(`pages past the end of ${block.id}`);
    return { kind: 'pages', block: block.id, offset, lengthBytes };
  }

  /** The bitmap follows its message: u64 length, the bits, u64 mark. */
  #received(
    contents: Buffer,
    end: number,
  ): { readonly reply: Reply; readonly lengthBytes: number } | undefined {
    const block = this.#blocks.get(nameIn(contents));
    if (block === undefined) throw foreign('a bitmap of no block we know');
    const expectedBytes = Math.ceil(block.sizeBytes / PAGE_BYTES / 64) * 8;
    const bytes = this.#bytes;
    if (bytes.length < end + 8) return undefined;
    if (bytes.readBigUInt64BE(end) !== BigInt(expectedBytes)) throw foreign(`a bitmap of another size`);
    const last = end + 8 + expectedBytes;
    if (bytes.length < last + 8) return undefined;
    if (bytes.readBigUInt64BE(last) !== BITMAP_END) throw foreign('a bitmap without its end');
    const bitmap = Buffer.from(bytes.subarray(end + 8, last));
    return { reply: { kind: 'received', block: block.id, bitmap }, lengthBytes: last + 8 };
  }
}

/** Before the rest has arrived: what is wrong is not waited for. */
function checkLength(type: number, lengthBytes: number): void {
  const isRight =
    type === REPLY.pagesOf
      ? lengthBytes >= 14 && lengthBytes <= 12 + 1 + 255
      : type === REPLY.pages
        ? lengthBytes === 12
        : type === REPLY.receivedBitmap
          ? lengthBytes >= 2 && lengthBytes <= 256
          : type === REPLY.switchover
            ? lengthBytes === 0
            : (type === REPLY.shut || type === REPLY.pong || type === REPLY.resumed) && lengthBytes === 4;
  if (!isRight) throw foreign(`message ${type} of ${lengthBytes} bytes`);
}

function nameIn(contents: Buffer): string {
  if (contents.length !== 1 + (contents[0] ?? 0)) throw foreign('a name of the wrong length');
  return contents.toString('utf8', 1);
}

function foreign(what: string): StasisError {
  return new StasisError('qemu-failed', `QEMU broke the protocol of its return path: ${what}`);
}
