/**
 * QEMU's migration stream, written by us: the parts from which a stream is put together that stock QEMU loads. After
 * QEMU's `migration/savevm.c` and `migration/ram.c`; all numbers big-endian. memory-file.ts reads what QEMU writes.
 */

export const STREAM_MAGIC = 0x5145564d;
export const STREAM_VERSION = 3;
export const RAM_VERSION = 4;
export const SECTION_FOOTER = 0x7e;
/** The only page size of the stream, whatever the pages of the host. */
export const PAGE_BYTES = 4096;

export const SECTION = {
  end: 0,
  start: 1,
  part: 2,
  last: 3,
  full: 4,
  subsection: 5,
  description: 6,
  configuration: 7,
  command: 8,
} as const;

/** The low 12 bits of a page's address in the stream are flags. */
export const RAM_FLAG = { zero: 0x02, size: 0x04, page: 0x08, endOfSection: 0x10, sameBlock: 0x20 } as const;

/** A block of the guest's memory, as the stream names it. */
export interface StreamBlock {
  readonly id: string;
  readonly sizeBytes: number;
  /** The size of its pages on the host, when they are huge pages and postcopy wants to know it. */
  readonly hugePageBytes?: number | undefined;
}

/** Header and configuration, without capabilities: a plain stream. */
export function streamHeader(machineType: string): Buffer {
  const name = Buffer.from(machineType);
  return Buffer.concat([
    u32(STREAM_MAGIC),
    u32(STREAM_VERSION),
    u8(SECTION.configuration),
    u32(name.length),
    name,
  ]);
}

/** The first section of memory: which blocks there are. */
export function ramStart(sectionId: number, blocks: readonly StreamBlock[]): Buffer {
  const totalBytes = blocks.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  return Buffer.concat([
    u8(SECTION.start),
    u32(sectionId),
    shortString('ram'),
    u32(0),
    u32(RAM_VERSION),
    u64(totalBytes + RAM_FLAG.size),
    ...blocks.flatMap(({ id, sizeBytes, hugePageBytes }) => [
      shortString(id),
      u64(sizeBytes),
      ...(hugePageBytes === undefined ? [] : [u64(hugePageBytes)]),
    ]),
    ramSectionEnd(sectionId),
  ]);
}

/** What comes before the pages of a further section of memory; `last` is the one after which no page comes. */
export function ramSectionStart(sectionId: number, type: 'part' | 'last'): Buffer {
  return Buffer.concat([u8(SECTION[type]), u32(sectionId)]);
}

/** What comes after them. */
export function ramSectionEnd(sectionId: number): Buffer {
  return Buffer.concat([u64(RAM_FLAG.endOfSection), u8(SECTION_FOOTER), u32(sectionId)]);
}

/** A page before its 4096 bytes. @param block its name, unless it is that of the page before in the same section */
export function pageHeader(offsetBytes: number, block?: string): Buffer {
  return pageStart(offsetBytes + RAM_FLAG.page, block);
}

/** A page of zeros, whole. */
export function zeroPage(offsetBytes: number, block?: string): Buffer {
  return Buffer.concat([pageStart(offsetBytes + RAM_FLAG.zero, block), u8(0)]);
}

function pageStart(offsetAndFlag: number, block: string | undefined): Buffer {
  return block === undefined
    ? u64(offsetAndFlag + RAM_FLAG.sameBlock)
    : Buffer.concat([u64(offsetAndFlag), shortString(block)]);
}

/** A command to the destination, `enum qemu_vm_cmd` in savevm.c. */
export function command(number: number, contents: Buffer = Buffer.alloc(0)): Buffer {
  return Buffer.concat([u8(SECTION.command), u16(number), u16(contents.length), contents]);
}

export function u8(value: number): Buffer {
  return Buffer.from([value]);
}

export function u16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(value);
  return bytes;
}

export function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

export function u64(value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(value));
  return bytes;
}

/** A string with its length in one byte before it, as QEMU writes all names. */
export function shortString(text: string): Buffer {
  const bytes = Buffer.from(text);
  return Buffer.concat([u8(bytes.length), bytes]);
}
