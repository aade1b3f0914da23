/**
 * From the picture that QEMU writes fastest (PPM) to one that everybody can show (PNG). QEMU could write PNG itself, but
 * compresses in its main thread, which the guest's devices wait for: several times as long as PPM takes.
 * Formats: https://netpbm.sourceforge.net/doc/ppm.html, https://www.w3.org/TR/png-3/
 */
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { PNG } from 'pngjs';
import { StasisError } from '../errors.ts';

const BYTES_PER_PIXEL = 3;
/** PNG's number for that. */
const RGB = 2;
const HEADER = /^P6\s([1-9]\d{0,4})\s([1-9]\d{0,4})\s255\s/;

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

/** Compressed in another thread. What pngjs gives is a stream of the old kind. */
export async function pngOf({ width, height, pixels }: Picture): Promise<Buffer> {
  const png = new PNG({ width, height, inputHasAlpha: false, colorType: RGB });
  png.data = pixels;
  return buffer(new Readable().wrap(png.pack()));
}
