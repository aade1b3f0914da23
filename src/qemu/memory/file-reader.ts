import type { FileHandle } from 'node:fs/promises';
import { StasisError } from '../../errors.ts';

const BUFFER_BYTES = 64 << 10;

/**
 * Reads big-endian fields one after the other from a file that nobody vouches for. Knows the file's size, so that
 * no field can reach past it.
 * @throws StasisError `image-damaged`, from every method, when the file ends within the field
 */
export class FileReader {
  readonly sizeBytes: number;
  readonly #file: FileHandle;
  readonly #path: string;
  #position: number;
  #buffer: Buffer = Buffer.alloc(0);
  #bufferStart = 0;

  private constructor(file: FileHandle, path: string, sizeBytes: number, position: number) {
    this.#file = file;
    this.#path = path;
    this.sizeBytes = sizeBytes;
    this.#position = position;
  }

  /** Borrows the handle: whoever opened it closes it. */
  static async over(file: FileHandle, path: string, position: number): Promise<FileReader> {
    const { size } = await file.stat();
    return new FileReader(file, path, size, position);
  }

  /** Where the next field begins. */
  get position(): number {
    return this.#position;
  }

  seek(position: number): void {
    this.#position = position;
  }

  async u8(what: string): Promise<number> {
    return (await this.bytes(1, what)).readUInt8();
  }

  async u16(what: string): Promise<number> {
    return (await this.bytes(2, what)).readUInt16BE();
  }

  async u32(what: string): Promise<number> {
    return (await this.bytes(4, what)).readUInt32BE();
  }

  /** A u64 that must be a number of ours: nothing in a file that fits on a disk is larger than 2^53. */
  async u64(what: string): Promise<number> {
    const value = (await this.bytes(8, what)).readBigUInt64BE();
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw this.damaged(`${what} is impossibly large (${value})`);
    return Number(value);
  }

  /** A string with its length in one byte before it, as QEMU writes all names. */
  async name(what: string): Promise<string> {
    return (await this.bytes(await this.u8(what), what)).toString('utf8');
  }

  /** The next byte, without going past it. */
  async peek(what: string): Promise<number> {
    const value = await this.u8(what);
    this.#position -= 1;
    return value;
  }

  /** The next `lengthBytes` bytes. The buffer is valid until the next read. */
  async bytes(lengthBytes: number, what: string): Promise<Buffer> {
    if (this.#position + lengthBytes > this.sizeBytes) throw this.damaged(`it ends within ${what}`);
    const begin = this.#position - this.#bufferStart;
    if (begin < 0 || begin + lengthBytes > this.#buffer.length)
      await this.#fill(Math.max(lengthBytes, BUFFER_BYTES));
    const from = this.#position - this.#bufferStart;
    if (from + lengthBytes > this.#buffer.length) throw this.damaged(`it ends within ${what}`);
    this.#position += lengthBytes;
    return this.#buffer.subarray(from, from + lengthBytes);
  }

  /** The error for what is wrong with this file. */
  damaged(what: string): StasisError {
    return new StasisError('image-damaged', `the memory file ${this.#path} is damaged: ${what}`, {
      details: { path: this.#path, position: this.#position, sizeBytes: this.sizeBytes },
    });
  }

  async #fill(lengthBytes: number): Promise<void> {
    const target = Buffer.allocUnsafe(Math.min(lengthBytes, this.sizeBytes - this.#position));
    let filledBytes = 0;
    while (filledBytes < target.length) {
      const rest = target.length - filledBytes;
      const { bytesRead } = await this.#file.read(target, filledBytes, rest, this.#position + filledBytes);
      if (bytesRead === 0) break; // truncated meanwhile
      filledBytes += bytesRead;
    }
    this.#buffer = target.subarray(0, filledBytes);
    this.#bufferStart = this.#position;
  }
}
