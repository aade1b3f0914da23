/**
 * The checksum of a file that may have holes and may be huge. It depends on what the file reads as, and not on how
 * sparse it is, so that a copy of the file has the same. Format 1:
 *
 * ```
 * piece i    the bytes from i × 1 MiB, 1 MiB of them or what is left of the file
 * sha256     SHA-256 of: "stasis file sum 1\n", u64 size of the file,
 *            for each piece that is not all zero, in order: u64 i, SHA-256 of the piece        (big-endian)
 * pieces     for each such piece: u32 i, the first 8 bytes of its SHA-256: only to tell where files differ
 * ```
 *
 * A hole is zeros, and zeros written out count like a hole: neither is in it, and neither need be read twice.
 */
import { createHash } from 'node:crypto';

export const PIECE_BYTES = 1 << 20;
const FORMAT = 'stasis file sum 1\n';
const ENTRY_BYTES = 12;
const DIGEST_BYTES = 8;

export interface FileSum {
  /** hexadecimal */
  readonly sha256: string;
  readonly sizeBytes: number;
  readonly pieces: Buffer;
}

/** Bytes of a file, from `start` up to but without `end`. */
interface Range {
  readonly start: number;
  readonly end: number;
}

/** A sum in the making: it may be left and gone on with later. */
export class SumBuilder {
  readonly #hash = createHash('sha256');
  readonly #sizeBytes: number;
  #pieces = Buffer.alloc(64 * ENTRY_BYTES);
  #usedBytes = 0;
  #nextPiece = 0;

  constructor(sizeBytes: number) {
    this.#sizeBytes = sizeBytes;
    this.#hash.update(FORMAT).update(u64(sizeBytes));
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  /** The first piece of which nothing is known yet. */
  get nextPiece(): number {
    return this.#nextPiece;
  }

  /** A piece that isn't all zero, with its SHA-256; those that are left out are. */
  add(index: number, sha256: Uint8Array): void {
    if (index < this.#nextPiece) throw new RangeError(`piece ${index} comes after ${this.#nextPiece - 1}`);
    this.#hash.update(u64(index)).update(sha256);
    if (this.#usedBytes === this.#pieces.length) this.#pieces = Buffer.concat([this.#pieces, this.#pieces]);
    this.#pieces.writeUInt32BE(index, this.#usedBytes);
    this.#pieces.set(sha256.subarray(0, DIGEST_BYTES), this.#usedBytes + ENTRY_BYTES - DIGEST_BYTES);
    this.#usedBytes += ENTRY_BYTES;
    this.#nextPiece = index + 1;
  }

  /** All pieces before this one are known. */
  skipTo(index: number): void {
    this.#nextPiece = Math.max(this.#nextPiece, index);
  }

  /** Once, at the end. */
  finish(): FileSum {
    return {
      sha256: this.#hash.digest('hex'),
      sizeBytes: this.#sizeBytes,
      pieces: Buffer.from(this.#pieces.subarray(0, this.#usedBytes)),
    };
  }
}

/** Where two files differ, in whole pieces; none where their sums are the same. The end of the shorter one counts. */
export function differences(before: FileSum, now: FileSum): Range[] {
  if (before.sha256 === now.sha256) return [];
  const [old, present] = [entriesOf(before), entriesOf(now)];
  const indexes = [...new Set([...old.keys(), ...present.keys()])].filter(
    (index) => old.get(index) !== present.get(index),
  );
  const endBytes = Math.max(before.sizeBytes, now.sizeBytes);
  const ranges = joined(indexes.toSorted((a, b) => a - b)).map(({ start, end }) => ({
    start: start * PIECE_BYTES,
    end: Math.min(end * PIECE_BYTES, endBytes),
  }));
  if (before.sizeBytes === now.sizeBytes || ranges.some(({ end }) => end === endBytes)) return ranges;
  return [...ranges, { start: Math.min(before.sizeBytes, now.sizeBytes), end: endBytes }];
}

function entriesOf({ pieces }: FileSum): Map<number, string> {
  const entries = new Map<number, string>();
  for (let at = 0; at < pieces.length; at += ENTRY_BYTES)
    entries.set(pieces.readUInt32BE(at), pieces.toString('hex', at + 4, at + ENTRY_BYTES));
  return entries;
}

function joined(indexes: readonly number[]): Range[] {
  const ranges: { start: number; end: number }[] = [];
  for (const index of indexes) {
    const last = ranges.at(-1);
    if (last !== undefined && last.end === index) last.end = index + 1;
    else ranges.push({ start: index, end: index + 1 });
  }
  return ranges;
}

function u64(value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(value));
  return bytes;
}
