import type { FileHandle } from 'node:fs/promises';
import { StasisError } from '../../errors.ts';
import type { PageLedger } from './page-ledger.ts';
import { PAGE_BYTES, pageHeader, RAM_FLAG, zeroPage } from '../memory/migration-stream.ts';

/** The header of a page of the same block as the one before. */
const HEADER_BYTES = 8;
const SLOT_BYTES = HEADER_BYTES + PAGE_BYTES;
/** The first page's header has the block's name in it, and stands behind that of the section. */
const LEAD_BYTES = 5 + HEADER_BYTES + 1 + 255;
const TAIL_BYTES = 13;

/** What stands before and behind pages: the channel for asked-for pages has none of either. */
export interface Wrapping {
  readonly head: Buffer;
  readonly tail: Buffer;
}

/**
 * A piece of the stream that is used again and again: places for pages with room for their headers between them, so
 * that one preadv(2) reads from the file straight into the stream.
 */
export class PageChunk {
  readonly #bytes: Buffer;
  readonly #slots: readonly Buffer[];
  /** where the pages go that lie between those that are wanted */
  readonly #aside = Buffer.allocUnsafe(PAGE_BYTES);

  /** @param pages at most; preadv(2) takes 1024 */
  constructor(pages: number) {
    this.#bytes = Buffer.allocUnsafe(LEAD_BYTES + pages * SLOT_BYTES + TAIL_BYTES);
    this.#slots = Array.from({ length: pages }, (_, slot) => {
      const start = LEAD_BYTES + slot * SLOT_BYTES;
      return this.#bytes.subarray(start, start + PAGE_BYTES);
    });
  }

  /**
   * Fills it with pages of one block. The result is valid until the next call.
   * @param hostPages in ascending order, not further apart than what the chunk holds
   * @throws StasisError `image-damaged` when the file ends before
   */
  async fill(
    file: FileHandle,
    ledger: PageLedger,
    hostPages: readonly number[],
    { head, tail }: Wrapping,
  ): Promise<Buffer> {
    const first = (hostPages[0] ?? 0) * ledger.pagesEach;
    const reads: Buffer[] = [];
    let slot = 0;
    for (const hostPage of hostPages) {
      const start = hostPage * ledger.pagesEach;
      while (first + reads.length < start) reads.push(this.#aside);
      for (let page = start; page < start + ledger.pagesEach; page += 1) {
        const isPresent = ledger.isPresent(page);
        // What the file holds in the place of a zero page is nobody's business.
        if (!isPresent) this.#slots[slot]?.fill(0);
        reads.push(isPresent ? (this.#slots[slot] ?? this.#aside) : this.#aside);
        if (slot > 0) this.#writeHeader(slot, page * PAGE_BYTES);
        slot += 1;
      }
    }
    const { bytesRead } = await file.readv(reads, ledger.block.pagesOffset + first * PAGE_BYTES);
    if (bytesRead !== reads.length * PAGE_BYTES)
      throw new StasisError('image-damaged', `the memory file ends within the pages of ${ledger.block.id}`);

    const begin = this.#bytes.subarray(0, LEAD_BYTES);
    const lead = Buffer.concat([head, pageHeader(first * PAGE_BYTES, ledger.block.id)]);
    lead.copy(begin, LEAD_BYTES - lead.length);
    const end = LEAD_BYTES + slot * SLOT_BYTES - HEADER_BYTES;
    tail.copy(this.#bytes, end);
    return this.#bytes.subarray(LEAD_BYTES - lead.length, end + tail.length);
  }

  #writeHeader(slot: number, offsetBytes: number): void {
    const at = LEAD_BYTES + slot * SLOT_BYTES - HEADER_BYTES;
    this.#bytes.writeUInt32BE(Math.floor(offsetBytes / 2 ** 32), at);
    this.#bytes.writeUInt32BE((offsetBytes % 2 ** 32) + RAM_FLAG.page + RAM_FLAG.sameBlock, at + 4);
  }
}

/** A page of the host that is zero all over. */
export function zeroHostPage(ledger: PageLedger, hostPage: number): Buffer {
  const start = hostPage * ledger.pagesEach;
  return Buffer.concat(
    Array.from({ length: ledger.pagesEach }, (_, index) =>
      zeroPage((start + index) * PAGE_BYTES, index === 0 ? ledger.block.id : undefined),
    ),
  );
}
