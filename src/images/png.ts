/**
 * From the picture that QEMU writes fastest (PPM) to one that everybody can show (PNG). QEMU could write PNG itself, but
 * compresses in its main thread, which the guest's devices wait for: several times as long as PPM takes.
 * Formats: https://netpbm.sourceforge.net/doc/ppm.html, https://www.w3.org/TR/png-3/
 */
import { promisify } from 'node:util';
import { crc32, deflate } from 'node:zlib';
import { StasisError } from '../errors.ts';

const BYTES_PER_PIXEL = 3;
const SIGNATURE = Buffer.from('\x89PNG\r\n\x1a\n', 'latin1');
const HEADER = /^P6\s(\d{1,5})\s(\d{1,5})\s255\s/;

export interface Picture {
  readonly width: number;
  readonly height: number;
  /** rows of red, green, blue, one byte each */
  readonly pixels: Buffer;
}

/** @throws StasisError `qemu-failed` when it is no PPM of 8 bits a colour, or not all of one */
export function readPpm(ppm: Buffer): Picture {
  const [header = '', width, height] = HEADER.exec(ppm.toString('latin1', 0, 32)) ?? [];
  const picture = { width: Number(width), height: Number(height), pixels: ppm.subarray(header.length) };
  if (header === '' || picture.pixels.length !== picture.width * picture.height * BYTES_PER_PIXEL)
    throw new StasisError('qemu-failed', 'QEMU wrote no picture, or only a part of one');
  return picture;
}

/** Compressed in another thread. */
export async function pngOf({ width, height, pixels }: Picture): Promise<Buffer> {
  const size = Buffer.alloc(8);
  size.writeUInt32BE(width, 0);
  size.writeUInt32BE(height, 4);
  const eightBitRgb = Buffer.from([8, 2, 0, 0, 0]);
  return Buffer.concat([
    SIGNATURE,
    chunk('IHDR', Buffer.concat([size, eightBitRgb])),
    chunk('IDAT', await promisify(deflate)(unfilteredRows(pixels, width * BYTES_PER_PIXEL))),
    chunk('IEND', Buffer.alloc(0)),
  ]);
}

/** Every row begins with the number of its filter: 0, none. */
function unfilteredRows(pixels: Buffer, rowBytes: number): Buffer {
  const rows = Buffer.alloc((rowBytes + 1) * (pixels.length / rowBytes));
  for (let row = 0; row * rowBytes < pixels.length; row += 1)
    pixels.copy(rows, row * (rowBytes + 1) + 1, row * rowBytes, (row + 1) * rowBytes);
  return rows;
}

function chunk(type: string, data: Buffer): Buffer {
  const length = Buffer.alloc(4);
  length.writeUInt32BE(data.length);
  const body = Buffer.concat([Buffer.from(type, 'latin1'), data]);
  const checksum = Buffer.alloc(4);
  checksum.writeUInt32BE(crc32(body));
  return Buffer.concat([length, body, checksum]);
}
