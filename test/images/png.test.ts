import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { PNG } from 'pngjs';
import { StasisError } from '../../src/errors.ts';
import { pngOf, readPpm } from '../../src/images/png.ts';

const picture = fc
  .tuple(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 40 }))
  .chain(([width, height]) =>
    fc.record({
      width: fc.constant(width),
      height: fc.constant(height),
      pixels: fc.uint8Array({ minLength: width * height * 3, maxLength: width * height * 3 }),
    }),
  );

test('a picture is the same as PPM and as PNG', async () => {
  await fc.assert(
    fc.asyncProperty(picture, async ({ width, height, pixels }) => {
      const ppm = Buffer.concat([Buffer.from(`P6\n${width} ${height}\n255\n`), pixels]);
      const png = PNG.sync.read(await pngOf(readPpm(ppm)), { skipRescale: true });
      assert.deepEqual([png.width, png.height], [width, height]);
      const opaque = png.data.filter((_, index) => index % 4 !== 3);
      assert.deepEqual(opaque, Buffer.from(pixels));
      assert.throws(() => readPpm(ppm.subarray(0, -1)), StasisError);
    }),
  );
});

test('anything else is no picture', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 100 }), (bytes) =>
      assert.throws(() => readPpm(Buffer.from(bytes)), { code: 'qemu-failed' }),
    ),
  );
});
