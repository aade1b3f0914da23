/** Reads the PNGs that Stasis writes, without knowing how it writes them: every length, checksum and row is checked. */
import assert from 'node:assert/strict';
import { crc32, inflateSync } from 'node:zlib';

/** @returns the pixels in rows of red, green, blue */
export function decodePng(png: Buffer): { width: number; height: number; pixels: Buffer } {
  assert.equal(png.toString('hex', 0, 8), '89504e470d0a1a0a');
  const chunks = new Map<string, Buffer>();
  for (let at = 8; at < png.length;) {
    const length = png.readUInt32BE(at);
    const body = png.subarray(at + 4, at + 8 + length);
    assert.equal(png.readUInt32BE(at + 8 + length), crc32(body));
    chunks.set(body.toString('latin1', 0, 4), body.subarray(4));
    at += 12 + length;
  }
  assert.deepEqual([...chunks.keys()], ['IHDR', 'IDAT', 'IEND']);
  const header = chunks.get('IHDR') ?? Buffer.alloc(0);
  const [width, height] = [header.readUInt32BE(0), header.readUInt32BE(4)];
  assert.deepEqual([...header.subarray(8)], [8, 2, 0, 0, 0], 'eight bits, RGB, nothing special');
  const rows = inflateSync(chunks.get('IDAT') ?? Buffer.alloc(0));
  const rowBytes = width * 3 + 1;
  assert.equal(rows.length, rowBytes * height);
  const pixels = Array.from({ length: height }, (_, row) => {
    assert.equal(rows[row * rowBytes], 0, 'no filter');
    return rows.subarray(row * rowBytes + 1, (row + 1) * rowBytes);
  });
  return { width, height, pixels: Buffer.concat(pixels) };
}
