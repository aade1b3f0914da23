/**
 * What a live save of a guest that writes costs with each storage driver, and whether a disk's size matters: a guest on a
 * disk of 1 GiB and one on 1 TiB take turns. And what a clone costs for the number of pieces that a file is in.
 * As root, since file systems are made and mounted. `--saves 20`
 */
import { open } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { reflink } from '../src/storage/reflink.ts';
import { findQemu } from '../src/qemu/build/binary.ts';
import { ImageTool } from '../src/qemu/block/image-tool.ts';
import { GROUNDS, type GroundKind } from '../test/support/grounds.ts';
import { Lab } from '../test/support/lab.ts';

const { values } = parseArgs({ options: { saves: { type: 'string', default: '20' } } });
const SAVES = Number(values.saves);
const SIZES = { '1 GiB': 1024, '1 TiB': 1024 ** 2 } as const;
const PIECES = [1000, 10_000, 50_000];

for (const kind of GROUNDS.filter(({ second }) => second === undefined)) {
  if (kind.skip !== false) process.stdout.write(`${kind.name}: left out, ${kind.skip}\n`);
  else await saves(kind);
}
for (const kind of GROUNDS) {
  if (kind.skip === false && kind.driver === 'reflink' && /raw/.test(kind.name)) await pieces(kind);
}

/** Live saves of both guests in turn; each image is deleted before the next one is taken. */
async function saves(kind: GroundKind): Promise<void> {
  await using lab = await Lab.on(kind);
  const figures = new Map(Object.keys(SIZES).map((size) => [size, { disksMs: [0], pauseMs: [0] }]));
  for (const [size, sizeMiB] of Object.entries(SIZES)) {
    const disk = await lab.makeDisk(guestOf(size), sizeMiB);
    await lab.defineOn(guestOf(size), [{ name: 'disk0', ...disk }]);
    await lab.client.start(guestOf(size));
    await using witness = await lab.witness(guestOf(size));
    await witness.interval(1);
    figures.set(size, { disksMs: [], pauseMs: [] });
  }
  for (let round = 0; round < SAVES; round += 1) {
    for (const [size, figure] of figures) {
      await lab.client.createSaveImage(guestOf(size), { name: 'a', live: true });
      const { pauseParts, pauseMs } = await lab.client.getSaveImageInfo(guestOf(size), 'a');
      figure.disksMs.push(pauseParts?.disksMs ?? Number.NaN);
      figure.pauseMs.push(pauseMs ?? Number.NaN);
      await lab.client.deleteSaveImage(guestOf(size), 'a');
    }
  }
  for (const [size, { disksMs, pauseMs }] of figures)
    process.stdout.write(
      `${kind.name}, ${size}: disks ${spread(disksMs)} ms of a pause of ${spread(pauseMs)} ms\n`,
    );
}

function guestOf(size: string): string {
  return `guest-${size.replaceAll(' ', '-')}`;
}

/** Clones of a file that was written in pieces that don't touch. */
async function pieces(kind: GroundKind): Promise<void> {
  await using ground = await kind.open();
  const driver = reflink(new ImageTool((await findQemu()).imageToolPath));
  for (const count of PIECES) {
    const disk = await ground.makeDisk(`pieces-${count}`, 512);
    {
      await using file = await open(disk.path, 'r+');
      const block = Buffer.alloc(4096, 7);
      for (let index = 0; index < count; index += 1)
        await file.write(block, 0, block.length, index * 2 * block.length);
      await file.sync();
    }
    const head = { id: '', ...disk, sizeBytes: 0, parent: null, driver: 'reflink' } as const;
    const times: number[] = [];
    for (let round = 0; round < 5; round += 1) times.push((await driver.rehearse?.(head)) ?? Number.NaN);
    process.stdout.write(`${kind.name}, a clone of ${count} pieces: ${spread(times)} ms\n`);
  }
}

/** Median, with minimum and maximum. */
function spread(samples: readonly number[]): string {
  const sorted = samples.toSorted((a, b) => a - b);
  const [median = 0, least = 0, most = 0] = [sorted[sorted.length >> 1], sorted[0], sorted.at(-1)];
  return `${median.toFixed(1)} (${least.toFixed(1)}–${most.toFixed(1)})`;
}
