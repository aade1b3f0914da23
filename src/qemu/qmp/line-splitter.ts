/**
 * Cuts a byte stream into lines, with a cap on their length: what comes over a socket is foreign, and a peer
 * that never sends a newline must not fill our memory.
 */
export class LineSplitter {
  readonly #maxLineBytes: number;
  #parts: Buffer[] = [];
  #heldBytes = 0;

  constructor(maxLineBytes: number) {
    this.#maxLineBytes = maxLineBytes;
  }

  /**
   * The lines that `chunk` completes, without their newline.
   * @throws RangeError when a line is longer than the cap
   */
  *push(chunk: Buffer): Generator<string> {
    let rest = chunk;
    for (let end = rest.indexOf(0x0a); end >= 0; end = rest.indexOf(0x0a)) {
      this.#hold(rest.subarray(0, end));
      rest = rest.subarray(end + 1);
      const line = Buffer.concat(this.#parts, this.#heldBytes).toString('utf8');
      this.#parts = [];
      this.#heldBytes = 0;
      yield line;
    }
    this.#hold(rest);
  }

  #hold(part: Buffer): void {
    this.#heldBytes += part.length;
    if (this.#heldBytes > this.#maxLineBytes)
      throw new RangeError(`a line exceeds ${this.#maxLineBytes} bytes`);
    if (part.length > 0) this.#parts.push(part);
  }
}
