/**
 * Reads the pieces of a file that aren't all zero, past the page cache: what guests need of that must stay in it, and what
 * is to be checked is what the disk holds. Where that can't be, what was read is dropped from the cache.
 */
import { hash } from 'node:crypto';
import { constants, open, type FileHandle } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { errnoOf } from '../errors.ts';
import { alignedBuffer, dropCached, supportsDirectIo } from '../qemu/memory/direct-io.ts';
import { dataExtents, sizeOf } from '../qemu/memory/sparse-file.ts';
import { PIECE_BYTES } from './file-sum.ts';

export interface PiecesRequest {
  readonly path: string;
  readonly fromPiece: number;
  /** as fast as it goes when absent */
  readonly bytesPerSecond?: number | undefined;
}

export interface PieceSink {
  /** told first: the file's size */
  onSize(sizeBytes: number): void;
  onPiece(index: number, sha256: Uint8Array): void;
  /** all pieces before this one are read, or zero */
  onSkipped(nextPiece: number): void;
}

const ZEROS = Buffer.alloc(PIECE_BYTES);

/** @throws Node's system errors; StasisError `storage-failed` */
export async function readPieces(request: PiecesRequest, sink: PieceSink): Promise<void> {
  await using source = await Source.open(request.path);
  const sizeBytes = sizeOf(source.file);
  sink.onSize(sizeBytes);
  const pace = new Pace(request.bytesPerSecond);
  let ahead: Promise<Read> | undefined;
  const settle = async () => {
    const read = await ahead;
    if (read === undefined) return;
    tell(read, sink);
    await pace.keep(read.bytes.length);
  };
  for await (const index of piecesWithData(source.file, request.fromPiece, sizeBytes)) {
    const next = source.read(index, Math.min(PIECE_BYTES, sizeBytes - index * PIECE_BYTES));
    // While this one is read, the one before is summed.
    next.catch(() => undefined);
    await settle();
    ahead = next;
  }
  await settle();
  sink.onSkipped(Math.ceil(sizeBytes / PIECE_BYTES));
}

interface Read {
  readonly index: number;
  readonly bytes: Uint8Array;
}

function tell({ index, bytes }: Read, sink: PieceSink): void {
  if (ZEROS.subarray(0, bytes.length).equals(bytes)) sink.onSkipped(index + 1);
  else sink.onPiece(index, hash('sha256', bytes, 'buffer'));
}

async function* piecesWithData(file: FileHandle, from: number, sizeBytes: number): AsyncGenerator<number> {
  let next = from;
  for await (const { start, end } of dataExtents(file, from * PIECE_BYTES, sizeBytes)) {
    next = Math.max(next, Math.floor(start / PIECE_BYTES));
    for (; next * PIECE_BYTES < end; next += 1) yield next;
  }
}

/** A file that is read piece by piece, into two buffers in turn. */
class Source implements AsyncDisposable {
  file: FileHandle;
  readonly #path: string;
  #isDirect: boolean;
  readonly #memory = alignedBuffer(2 * PIECE_BYTES);
  #turn = 0;

  private constructor(file: FileHandle, path: string, isDirect: boolean) {
    this.file = file;
    this.#path = path;
    this.#isDirect = isDirect;
  }

  static async open(path: string): Promise<Source> {
    const isDirect = await supportsDirectIo(path, 'read');
    const file = await open(path, constants.O_RDONLY | (isDirect ? constants.O_DIRECT : 0));
    return new Source(file, path, isDirect);
  }

  async read(index: number, length: number): Promise<Read> {
    this.#turn = 1 - this.#turn;
    const buffer = this.#memory.subarray(this.#turn * PIECE_BYTES, (this.#turn + 1) * PIECE_BYTES);
    const start = index * PIECE_BYTES;
    let done = 0;
    while (done < length) {
      const bytesRead = await this.#readSome(buffer, done, start + done);
      if (bytesRead === 0) break; // it got shorter meanwhile: what is left counts as zeros, and its size tells
      done += bytesRead;
    }
    buffer.fill(0, done, length);
    if (!this.#isDirect) dropCached(this.file, start, length);
    return { index, bytes: buffer.subarray(0, length) };
  }

  /** A file system may only say at the first read, or at the file's end, that it can't do that. */
  async #readSome(buffer: Uint8Array, offset: number, position: number): Promise<number> {
    try {
      return (await this.file.read(buffer, offset, PIECE_BYTES - offset, position)).bytesRead;
    } catch (error) {
      if (!this.#isDirect || errnoOf(error) !== 'EINVAL') throw error;
    }
    await this.file.close();
    this.file = await open(this.#path, constants.O_RDONLY);
    this.#isDirect = false;
    return this.#readSome(buffer, offset, position);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.file.close();
  }
}

/** Waits so that no more than that is read in a second. */
class Pace {
  readonly #bytesPerSecond: number | undefined;
  readonly #beganMs = performance.now();
  #doneBytes = 0;

  constructor(bytesPerSecond: number | undefined) {
    this.#bytesPerSecond = bytesPerSecond;
  }

  async keep(bytes: number): Promise<void> {
    if (this.#bytesPerSecond === undefined) return;
    this.#doneBytes += bytes;
    const dueMs = this.#beganMs + (this.#doneBytes / this.#bytesPerSecond) * 1000;
    const earlyMs = dueMs - performance.now();
    if (earlyMs > 1) await delay(earlyMs);
  }
}
