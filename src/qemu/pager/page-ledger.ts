/**
 * Which pages of a block have been sent. It counts in pages of the host: one of 2 MiB is 512 of the stream, which
 * must go together, and all else is a page of 4 KiB.
 */
import type { MemoryBlock } from '../memory/memory-file.ts';
import { PAGE_BYTES } from '../memory/migration-stream.ts';

export class PageLedger {
  readonly block: MemoryBlock;
  readonly hostPageBytes: number;
  /** how many pages of the stream make one of the host */
  readonly pagesEach: number;
  readonly count: number;
  /** the file's bitmap: pages of the stream that are not zero */
  readonly #present: Uint8Array;
  readonly #sent: Uint8Array;
  /** not zero and not sent */
  readonly #due: Uint8Array;
  #dueCount = 0;

  constructor(block: MemoryBlock, hostPageBytes: number, present: Uint8Array) {
    this.block = block;
    this.hostPageBytes = hostPageBytes;
    this.pagesEach = hostPageBytes / PAGE_BYTES;
    this.count = Math.ceil(block.sizeBytes / hostPageBytes);
    this.#present = present;
    this.#sent = new Uint8Array(Math.ceil(this.count / 8));
    this.#due = new Uint8Array(this.#sent.length);
    if (this.pagesEach === 1) {
      this.#due.set(present.subarray(0, this.#due.length));
      this.#dueCount = block.pagesPresent;
      return;
    }
    for (let page = 0; page < block.sizeBytes / PAGE_BYTES; page += 1)
      if (this.isPresent(page)) this.#makeDue(Math.floor(page / this.pagesEach));
  }

  /** How many are still to be pushed: those that are all zero only go when they are asked for. */
  get dueCount(): number {
    return this.#dueCount;
  }

  isPresent(streamPage: number): boolean {
    return bit(this.#present, streamPage);
  }

  /** Whether the page is zero all over. */
  isZero(page: number): boolean {
    const start = page * this.pagesEach;
    for (let each = start; each < start + this.pagesEach; each += 1) if (this.isPresent(each)) return false;
    return true;
  }

  /** Whether the page is the caller's to send: true once for each page. */
  take(page: number): boolean {
    if (bit(this.#sent, page)) return false;
    this.#sent[page >> 3] = (this.#sent[page >> 3] ?? 0) | (1 << (page & 7));
    if (bit(this.#due, page)) {
      this.#due[page >> 3] = (this.#due[page >> 3] ?? 0) & ~(1 << (page & 7));
      this.#dueCount -= 1;
    }
    return true;
  }

  /** Takes what is due from a page on, as far as `length`. */
  takeDue(from: number, length: number): number[] {
    const taken: number[] = [];
    for (let page = from; page < Math.min(from + length, this.count); page += 1)
      if (bit(this.#due, page) && this.take(page)) taken.push(page);
    return taken;
  }

  /** The first page from there on that is due. */
  nextDue(from: number): number | undefined {
    for (let page = from; page < this.count; page += 1) {
      if ((page & 7) === 0) while (page < this.count && this.#due[page >> 3] === 0) page += 8;
      if (page < this.count && bit(this.#due, page)) return page;
    }
    return undefined;
  }

  /** The destination has these already. @param received its bitmap, in pages of the stream */
  markReceived(received: Uint8Array): void {
    for (let page = 0; page < this.count; page += 1)
      if (bit(received, page * this.pagesEach)) this.take(page);
  }

  #makeDue(page: number): void {
    if (bit(this.#due, page)) return;
    this.#due[page >> 3] = (this.#due[page >> 3] ?? 0) | (1 << (page & 7));
    this.#dueCount += 1;
  }
}

function bit(bitmap: Uint8Array, index: number): boolean {
  return (((bitmap[index >> 3] ?? 0) >> (index & 7)) & 1) === 1;
}
