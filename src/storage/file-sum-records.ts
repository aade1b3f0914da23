/** What the process that sums a file tells its parent: records of one length, u8 kind, u64 number, 32 bytes. */
export const RECORD = { size: 1, piece: 2, skipped: 3 } as const;
const RECORD_BYTES = 41;
const NUMBER_AT = 1;
const DIGEST_AT = 9;

export function record(kind: number, number: number, sha256?: Uint8Array): Buffer {
  const bytes = Buffer.alloc(RECORD_BYTES);
  bytes.writeUInt8(kind);
  bytes.writeBigUInt64BE(BigInt(number), NUMBER_AT);
  if (sha256 !== undefined) bytes.set(sha256, DIGEST_AT);
  return bytes;
}

interface SumRecord {
  readonly kind: number;
  readonly number: number;
  readonly sha256: Buffer;
}

/** Cuts what arrives into records. */
export async function* recordsOf(stream: AsyncIterable<Buffer>): AsyncGenerator<SumRecord> {
  let rest: Buffer = Buffer.alloc(0);
  for await (const chunk of stream) {
    const bytes = Buffer.concat([rest, chunk]);
    let at = 0;
    for (; at + RECORD_BYTES <= bytes.length; at += RECORD_BYTES)
      yield {
        kind: bytes.readUInt8(at),
        number: Number(bytes.readBigUInt64BE(at + NUMBER_AT)),
        sha256: bytes.subarray(at + DIGEST_AT, at + RECORD_BYTES),
      };
    rest = bytes.subarray(at);
  }
}
