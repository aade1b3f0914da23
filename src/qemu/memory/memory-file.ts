import { open, type FileHandle } from 'node:fs/promises';
import { StasisError } from '../../errors.ts';
import { FileReader } from './file-reader.ts';
import {
  PAGE_BYTES,
  RAM_FLAG,
  RAM_VERSION,
  SECTION,
  SECTION_FOOTER,
  STREAM_MAGIC,
  STREAM_VERSION,
} from './migration-stream.ts';

/** A device's state as QEMU describes it at the end of the stream. */
export interface DeviceState {
  /** as in `devices` */
  readonly name: string;
  /** what QEMU calls the format that it is written in, and its version */
  readonly format: string;
  readonly version: number;
  /** names of the optional parts that were written */
  readonly subsections: readonly string[];
}

/**
 * The file of a mapped-ram capture: QEMU's migration stream (all numbers big-endian), in which every page of memory
 * has a fixed place. After QEMU's `migration/savevm.c`, `migration/ram.c`, `docs/devel/migration/mapped-ram.rst`:
 *
 * ```
 * header         u32 'QEVM', u32 3
 * configuration  0x07, u32 length + machine type; subsections 0x05, u8 length + name, u32 version, their contents
 * ram, start     0x01, u32 id, u8 length + "ram", u32 instance 0, u32 version 4
 *                u64 total | 4; for each block: u8 length + name, u64 length
 *                  u32 1, u64 page size, u64 bitmap offset, u64 pages offset      (offsets from the file's beginning)
 *                  the bitmap, at once: bit i of byte i/8 is page i; in whole 64-bit words, little-endian host
 *                  from the next 1 MiB boundary: the pages, block length in all; holes where the bit is clear
 *                u64 0x10; footer 0x7e, u32 id
 * ram, part/end  0x02 or 0x03, u32 id, u64 0x10; footer       (nothing in them: pages are in their places)
 * commands       0x08, u16 command, u16 length + contents                            (switchover start, for instance)
 * devices        0x04 …: opaque to us; 0x00; 0x06, u32 length + JSON that describes them, to the file's end
 * ```
 */
export interface MemoryFile {
  /** The versioned machine type, `pc-q35-10.0`. */
  readonly machineType: string;
  /** The number under which the stream's sections of memory go. */
  readonly ramSection: number;
  readonly blocks: readonly MemoryBlock[];
  /** From the first device's section … */
  readonly deviceStateOffset: number;
  /** … to behind the last one's, where the mark of the end and the description follow … */
  readonly devicesEnd: number;
  /** … up to the file's end. */
  readonly deviceStateEnd: number;
  /** The devices whose state is in the file, in its order, by QEMU's names: `0000:00:02.0/virtio-blk`. */
  readonly devices: readonly string[];
  /** … and what their states are like */
  readonly states: readonly DeviceState[];
}

export interface MemoryBlock {
  /** QEMU's name for the block of memory: `pc.ram`, `system.flash1`, `0000:00:01.0/vga.vram`, … */
  readonly id: string;
  readonly sizeBytes: number;
  readonly pageSizeBytes: number;
  /** All offsets are from the beginning of the file. */
  readonly bitmapOffset: number;
  readonly pagesOffset: number;
  /** How many pages have their bit set: all others are zero, whatever the file holds in their place. */
  readonly pagesPresent: number;
}

const BLOCK_HEADER_VERSION = 1;
const PAGES_ALIGNMENT_BYTES = 1 << 20;

/** Caps on what a damaged file could make us read or loop over; real files stay far below. */
const MAX_MACHINE_NAME_BYTES = 128;
const MAX_CAPABILITIES = 64;
const MAX_BLOCKS = 4096;
const MAX_SECTIONS = 10_000;
const MAX_BLOCK_BYTES = 2 ** 46;
const MAX_DEVICE_STATE_BYTES = 256 << 20;
/** Device state that looks like the mark of its own end, by chance or by malice. */
const MAX_DESCRIPTION_CANDIDATES = 8;
const BITMAP_CHUNK_BYTES = 1 << 20;

/**
 * Reads the structure of a mapped-ram file, bitmaps included, pages not.
 * @param offset where the stream begins in the file, `STREAM_OFFSET` for those of our captures
 * @throws StasisError `image-damaged` that says what is wrong; `storage-failed`, Node's system errors (`ENOENT`)
 */
export async function readMemoryFile(path: string, offset: number): Promise<MemoryFile> {
  await using file = await open(path, 'r');
  const reader = await FileReader.over(file, path, offset);
  const machineType = await readConfiguration(reader);
  const { id: ramSection, blocks } = await readRamSections(reader);
  const deviceStateOffset = reader.position;
  const { states, devicesEnd } = await readDeviceStates(reader);
  const deviceStateEnd = reader.sizeBytes;
  const devices = states.map(({ name }) => name);
  return {
    ...{ machineType, ramSection, blocks, deviceStateOffset, devicesEnd, deviceStateEnd },
    ...{ devices, states },
  };
}

export interface ExpectedMemory {
  readonly offset: number;
  readonly machineType: string;
  /** The guest's memory. */
  readonly memoryBytes: number;
  /** The name of the block that holds it; `pc.ram` unless the guest has a memory backend of another id. */
  readonly mainBlock?: string;
}

/**
 * The check after every capture: QEMU's "completed" alone is not believed. Beyond the structure: it is this guest's
 * machine type, its memory is there in its whole size, and its bitmap isn't empty (a running guest's never is; a
 * background capture leaves it so, and QEMU would load nothing from it without complaint).
 *
 * @throws StasisError as `readMemoryFile`
 */
export async function verifyMemoryFile(path: string, expected: ExpectedMemory): Promise<MemoryFile> {
  const memory = await readMemoryFile(path, expected.offset);
  const { machineType, memoryBytes, mainBlock = 'pc.ram' } = expected;
  const fail = (what: string): never => {
    throw new StasisError('image-damaged', `the memory file ${path} is not the guest's: ${what}`, {
      details: { path, expected },
    });
  };
  if (memory.machineType !== machineType) fail(`machine type ${memory.machineType}, not ${machineType}`);
  const block = memory.blocks.find(({ id }) => id === mainBlock) ?? fail(`no memory block ${mainBlock}`);
  if (block.sizeBytes !== memoryBytes) fail(`${block.sizeBytes} bytes of memory, not ${memoryBytes}`);
  if (block.pagesPresent === 0) fail('all of its memory is zero');
  if (memory.devices.length === 0) fail('it has no device');
  return memory;
}

/** The bits of a block: bit i & 7 of byte i >> 3 is page i. */
export async function readBitmap(file: FileHandle, block: MemoryBlock): Promise<Buffer> {
  const bitmap = Buffer.alloc(bitmapBytes(block));
  await file.read(bitmap, 0, bitmap.length, block.bitmapOffset);
  return bitmap;
}

/** Whole words of 64 bits. */
export function bitmapBytes({
  sizeBytes,
  pageSizeBytes,
}: Pick<MemoryBlock, 'sizeBytes' | 'pageSizeBytes'>): number {
  return Math.ceil(sizeBytes / pageSizeBytes / 64) * 8;
}

async function readConfiguration(reader: FileReader): Promise<string> {
  if ((await reader.u32('its header')) !== STREAM_MAGIC)
    throw reader.damaged('it is not a migration stream of QEMU');
  const version = await reader.u32('its header');
  if (version !== STREAM_VERSION) throw reader.damaged(`stream version ${version}, not ${STREAM_VERSION}`);
  if ((await reader.u8('the configuration')) !== SECTION.configuration)
    throw reader.damaged('no configuration');
  const length = await reader.u32('the machine type');
  if (length > MAX_MACHINE_NAME_BYTES) throw reader.damaged(`a machine type of ${length} bytes`);
  const machineType = (await reader.bytes(length, 'the machine type')).toString('utf8');

  let isMapped = false;
  while ((await reader.peek('the configuration')) === SECTION.subsection) {
    isMapped = (await readConfigurationPart(reader)) || isMapped;
  }
  if (!isMapped) throw reader.damaged('its memory is not in the mapped-ram format');
  return machineType;
}

/** @returns whether this part says that the file is mapped-ram */
async function readConfigurationPart(reader: FileReader): Promise<boolean> {
  await reader.u8('the configuration');
  const name = await reader.name('the configuration');
  await reader.u32('the configuration');
  switch (name) {
    case 'configuration/capabilities': {
      const count = await reader.u32('the capabilities');
      if (count > MAX_CAPABILITIES) throw reader.damaged(`${count} capabilities`);
      let isMapped = false;
      for (let i = 0; i < count; i += 1)
        isMapped = (await reader.name('the capabilities')) === 'mapped-ram' || isMapped;
      return isMapped;
    }
    case 'configuration/target-page-bits':
      await reader.u32('the page size');
      return false;
    case 'configuration/uuid':
      await reader.bytes(16, 'the UUID');
      return false;
    default:
      throw reader.damaged(`an unknown part of the configuration, "${name}"`);
  }
}

interface RamSections {
  readonly id: number;
  readonly blocks: readonly MemoryBlock[];
}

/** Reads until the first section that isn't memory's, where the devices begin. */
async function readRamSections(reader: FileReader): Promise<RamSections> {
  let ram: RamSections | undefined;
  for (let sections = 0; sections < MAX_SECTIONS; sections += 1) {
    const type = await reader.peek('the sections');
    if (type === SECTION.start) {
      if (ram !== undefined) throw reader.damaged('memory begins twice');
      ram = await readRamStart(reader);
    } else if (type === SECTION.part || type === SECTION.last) {
      if (ram === undefined) throw reader.damaged('memory goes on that never began');
      await readRamPart(reader, ram.id);
    } else if (type === SECTION.command) {
      await skipCommand(reader);
    } else {
      if (type !== SECTION.full) throw reader.damaged(`a section of the unknown type ${type}`);
      if (ram === undefined) throw reader.damaged('it holds no memory');
      return ram;
    }
  }
  throw reader.damaged(`more than ${MAX_SECTIONS} sections`);
}

async function readRamStart(reader: FileReader): Promise<RamSections> {
  await reader.u8('a section');
  const id = await reader.u32('a section');
  const name = await reader.name('a section');
  if (name !== 'ram') throw reader.damaged(`the state "${name}", which can't be told from memory`);
  await reader.u32('the memory section');
  const version = await reader.u32('the memory section');
  if (version !== RAM_VERSION) throw reader.damaged(`memory of version ${version}, not ${RAM_VERSION}`);

  const sizeAndFlag = await reader.u64("memory's size");
  if (sizeAndFlag % PAGE_BYTES !== RAM_FLAG.size) throw reader.damaged("memory doesn't begin with its size");
  let leftBytes = sizeAndFlag - RAM_FLAG.size;
  const blocks: MemoryBlock[] = [];
  while (leftBytes > 0) {
    const block = await readBlock(reader);
    if (block.sizeBytes > leftBytes) throw reader.damaged(`its blocks are larger than its memory`);
    if (blocks.some((other) => other.id === block.id))
      throw reader.damaged(`the block ${block.id} comes twice`);
    if (blocks.push(block) > MAX_BLOCKS) throw reader.damaged(`more than ${MAX_BLOCKS} blocks`);
    leftBytes -= block.sizeBytes;
  }
  await readRamEnd(reader, id);
  return { id, blocks };
}

async function readBlock(reader: FileReader): Promise<MemoryBlock> {
  const id = await reader.name("a block's name");
  const what = `the block ${id}`;
  const sizeBytes = await reader.u64(what);
  const version = await reader.u32(what);
  const pageSizeBytes = await reader.u64(what);
  const bitmapOffset = await reader.u64(what);
  const pagesOffset = await reader.u64(what);

  if (version !== BLOCK_HEADER_VERSION) throw reader.damaged(`${what} has the unknown version ${version}`);
  if (pageSizeBytes !== PAGE_BYTES) throw reader.damaged(`${what} has pages of ${pageSizeBytes} bytes`);
  if (sizeBytes === 0 || sizeBytes > MAX_BLOCK_BYTES || sizeBytes % pageSizeBytes !== 0) {
    throw reader.damaged(`${what} has the impossible size ${sizeBytes}`);
  }
  const pageCount = sizeBytes / pageSizeBytes;
  const bitmapLength = bitmapBytes({ sizeBytes, pageSizeBytes });
  if (bitmapOffset !== reader.position)
    throw reader.damaged(`the bitmap of ${what} is not behind its header`);
  if (pagesOffset < bitmapOffset + bitmapLength || pagesOffset % PAGES_ALIGNMENT_BYTES !== 0) {
    throw reader.damaged(`the pages of ${what} begin in a wrong place`);
  }
  if (pagesOffset + sizeBytes > reader.sizeBytes) throw reader.damaged(`it ends within the pages of ${what}`);

  const pagesPresent = await countPages(reader, bitmapLength, pageCount, what);
  reader.seek(pagesOffset + sizeBytes);
  return { id, sizeBytes, pageSizeBytes, bitmapOffset, pagesOffset, pagesPresent };
}

async function countPages(
  reader: FileReader,
  lengthBytes: number,
  pageCount: number,
  what: string,
): Promise<number> {
  let present = 0;
  let bitsLeft = pageCount;
  for (let done = 0; done < lengthBytes; done += BITMAP_CHUNK_BYTES) {
    const chunk = await reader.bytes(
      Math.min(BITMAP_CHUNK_BYTES, lengthBytes - done),
      `the bitmap of ${what}`,
    );
    for (const byte of chunk) {
      if (bitsLeft < 8 && byte >> Math.max(0, bitsLeft) !== 0)
        throw reader.damaged(`${what} has pages past its end`);
      present += BITS_SET[byte] ?? 0;
      bitsLeft -= 8;
    }
  }
  return present;
}

/** How many bits are set in each possible byte. */
const BITS_SET = Uint8Array.from({ length: 256 }, (_, byte) => byte.toString(2).replaceAll('0', '').length);

async function readRamPart(reader: FileReader, ramId: number): Promise<void> {
  await reader.u8('a section');
  const id = await reader.u32('a section');
  if (id !== ramId) throw reader.damaged(`section ${id} is not memory's`);
  await readRamEnd(reader, id);
}

async function readRamEnd(reader: FileReader, id: number): Promise<void> {
  const flags = await reader.u64("memory's end");
  if (flags !== RAM_FLAG.endOfSection)
    throw reader.damaged('pages within the stream, where mapped-ram has none');
  if ((await reader.u8("memory's end")) !== SECTION_FOOTER)
    throw reader.damaged('a section without its footer');
  if ((await reader.u32("memory's end")) !== id) throw reader.damaged("a section with another's footer");
}

async function skipCommand(reader: FileReader): Promise<void> {
  await reader.u8('a command');
  await reader.u16('a command');
  await reader.bytes(await reader.u16('a command'), 'a command');
}

/**
 * The states in the JSON description. Its beginning can't be found by walking, since what precedes it is opaque: it
 * is where "0x00 0x06, length" says exactly that the rest of the file is its text.
 */
async function readDeviceStates(
  reader: FileReader,
): Promise<{ readonly states: readonly DeviceState[]; readonly devicesEnd: number }> {
  const begin = reader.position;
  const lengthBytes = reader.sizeBytes - reader.position;
  if (lengthBytes > MAX_DEVICE_STATE_BYTES) throw reader.damaged(`${lengthBytes} bytes of device state`);
  const state = await reader.bytes(lengthBytes, 'the device state');
  const mark = Buffer.from([SECTION.end, SECTION.description]);
  let candidates = 0;
  for (let at = state.indexOf(mark); at >= 0; at = state.indexOf(mark, at + 1)) {
    const text = at + 6;
    if (text > state.length || state.readUInt32BE(at + 2) !== state.length - text) continue;
    candidates += 1;
    if (candidates > MAX_DESCRIPTION_CANDIDATES) break;
    const states = deviceStatesOf(state.toString('utf8', text));
    if (states !== undefined) return { states, devicesEnd: begin + at };
  }
  throw reader.damaged('its device state does not end as it should');
}

function deviceStatesOf(json: string): readonly DeviceState[] | undefined {
  const description = parseJson(json);
  if (!hasMember(description, 'devices') || !Array.isArray(description.devices)) return undefined;
  const devices: readonly unknown[] = description.devices;
  const states = devices.flatMap((device) =>
    hasMember(device, 'name') && typeof device.name === 'string' ? [stateOf(device, device.name)] : [],
  );
  return states.length === devices.length ? states : undefined;
}

function stateOf(device: object, name: string): DeviceState {
  const format = hasMember(device, 'vmsd_name') ? device.vmsd_name : name;
  const version = hasMember(device, 'version') ? device.version : 0;
  const subsections: readonly unknown[] =
    hasMember(device, 'subsections') && Array.isArray(device.subsections) ? device.subsections : [];
  return {
    name,
    format: typeof format === 'string' ? format : name,
    version: typeof version === 'number' ? version : 0,
    subsections: subsections.flatMap((one) =>
      hasMember(one, 'vmsd_name') && typeof one.vmsd_name === 'string' ? [one.vmsd_name] : [],
    ),
  };
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined; // not the description after all
  }
}

function hasMember<K extends string>(value: unknown, name: K): value is Record<K, unknown> {
  return typeof value === 'object' && value !== null && name in value;
}
