/**
 * What is done to the pages of a memory file once QEMU has written it, so that the file is what it says: each page
 * of the bitmap in its place, and nothing but holes in the places of all others.
 */
import { open, type FileHandle } from 'node:fs/promises';
import { bitmapBytes, readBitmap, type MemoryBlock, type MemoryFile } from './memory-file.ts';
import { dataExtents, punchHoles, type Extent } from './sparse-file.ts';

/**
 * Removes stale pages: in a file written while the guest ran, a page that was zero in the end but not at first has
 * its bit cleared and keeps its old bytes. QEMU's loader goes by the bits; who maps the file would see the bytes.
 * Repeatable.
 * @returns bytes that were stale
 * @throws StasisError `storage-failed`
 */
export async function removeStalePages(path: string, memory: MemoryFile): Promise<number> {
  await using file = await open(path, 'r+');
  let staleBytes = 0;
  for (const block of memory.blocks) staleBytes += await punchHoles(file, stalePages(file, block));
  return staleBytes;
}

async function* stalePages(file: FileHandle, block: MemoryBlock): AsyncGenerator<Extent> {
  const bitmap = await readBitmap(file, block);
  const { pagesOffset, pageSizeBytes, sizeBytes } = block;
  for await (const { start, end } of dataExtents(file, pagesOffset, pagesOffset + sizeBytes)) {
    const firstPage = Math.floor((start - pagesOffset) / pageSizeBytes);
    const endPage = Math.ceil((end - pagesOffset) / pageSizeBytes);
    for (const run of runsOf(bitmap, false, firstPage, endPage)) {
      yield { start: pagesOffset + run.start * pageSizeBytes, end: pagesOffset + run.end * pageSizeBytes };
    }
  }
}

/**
 * Writes the bitmaps that QEMU forgets in a background capture: it writes the pages that aren't zero, "completed", and
 * a file that loads nothing. Every part of the file that is no hole holds pages; one that is zero all the same does
 * no harm. Only for such a file: in one written by another method stale pages would come back.
 * @throws StasisError `storage-failed`
 */
export async function writeBitmaps(path: string, memory: MemoryFile): Promise<void> {
  await using file = await open(path, 'r+');
  for (const block of memory.blocks) {
    const { pagesOffset, pageSizeBytes, sizeBytes } = block;
    const bitmap = Buffer.alloc(bitmapBytes(block));
    for await (const { start, end } of dataExtents(file, pagesOffset, pagesOffset + sizeBytes)) {
      const endPage = Math.ceil((end - pagesOffset) / pageSizeBytes);
      for (let page = Math.floor((start - pagesOffset) / pageSizeBytes); page < endPage; page += 1)
        bitmap[page >> 3] = (bitmap[page >> 3] ?? 0) | (1 << (page & 7));
    }
    await file.write(bitmap, 0, bitmap.length, block.bitmapOffset);
  }
}

/** Runs of pages whose bits are all set, or all clear, as page numbers. */
export function* runsOf(
  bitmap: Uint8Array,
  set: boolean,
  firstPage: number,
  endPage: number,
): Generator<Extent> {
  const uniform = set ? 0 : 0xff; // a byte that ends any run
  let start: number | undefined;
  for (let page = firstPage; page < endPage;) {
    const byte = bitmap[page >> 3] ?? 0;
    const isIn = ((byte >> (page & 7)) & 1) === (set ? 1 : 0);
    if (isIn && start === undefined) start = page;
    if (!isIn && start !== undefined) {
      yield { start, end: page };
      start = undefined;
    }
    page += (page & 7) === 0 && (byte === uniform || byte === (uniform ^ 0xff)) ? 8 : 1;
  }
  if (start !== undefined) yield { start, end: endPage };
}
