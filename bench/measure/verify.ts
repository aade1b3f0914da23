/**
 * What checksums cost: how fast they are made in the background and compared by `verify`, and what a guest and its saves feel of
 * those in the background. Two guests take turns: nothing is summed for the one, for the other it begins as soon as an
 * image is there, within the rate that is allowed by default.
 */
import { mkdir, mkdtemp, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Image } from '../../src/api/schemas.ts';
import { errnoOf } from '../../src/errors.ts';
import type { Manifest } from '../../src/images/manifest.ts';
import { sessionPaths } from '../../src/paths.ts';
import { fromStored } from '../../src/stored.ts';
import { Lab } from '../../test/support/lab.ts';
import type { Figures, Setting, Unit } from '../figures.ts';
import { run, timed } from '../peers/peer.ts';

const GUEST = 'verify';
const DISK = 'vda';
const MIB = 1024 ** 2;
/** Most of the memory: sums that take longer than what is measured beside them. */
const FILLED = 0.75;
const REGION = { offsetMiB: 2, mib: 16 } as const;
const KINDS = { 'no checksums': 'false', 'while checksums are made': '{ afterSeconds: 0 }' } as const;
const UNLIMITED = 'as fast as it can';
const SUM_PATIENCE_MS = 120_000;

type Add = (figure: string, by: string, unit: Unit, value: number) => void;

export async function measureVerify(
  directory: string,
  setting: Setting,
  rounds: number,
  figures: Figures,
  signal: AbortSignal,
): Promise<void> {
  await using stack = new AsyncDisposableStack();
  const labs = new Map<string, Lab>();
  for (const [by, checksums] of Object.entries(KINDS))
    labs.set(by, stack.use(await openLab(directory, setting, checksums)));
  const fast = stack.use(await openLab(directory, setting, '{ afterSeconds: 0, bytesPerSecond: 1TiB }'));
  const add: Add = (figure, by, unit, value) => figures.add(figure, setting, by, unit, value);
  for (let round = 0; round < rounds; round += 1) {
    signal.throwIfAborted();
    const turns = [...labs];
    for (const [by, lab] of round % 2 === 0 ? turns : turns.toReversed())
      await measureBeside(lab, by, round, add);
    const limited = labs.get('while checksums are made');
    if (limited !== undefined) await measureRates(limited, 'within 200 MiB/s', add);
    await measureRates(fast, UNLIMITED, add);
  }
}

async function openLab(directory: string, { memoryMiB }: Setting, checksums: string): Promise<Lab> {
  const home = await mkdtemp(join(directory, 'verify-'));
  const { config } = sessionPaths({ STASIS_HOME: home });
  await mkdir(config, { recursive: true });
  await writeFile(join(config, 'stasis.yaml'), `checksums: ${checksums}\nscrub: false\n`);
  const lab = await Lab.open(home);
  await using witness = await lab.running(GUEST, { disks: 1, memory: `${memoryMiB}MiB` });
  await witness.fill(1, memoryMiB * FILLED);
  return lab;
}

/** What the guest writes and reads, and the pause of a live save, right after a save whose sums are under way. */
async function measureBeside(lab: Lab, by: string, round: number, add: Add): Promise<void> {
  const { client } = lab;
  const image = await client.createSaveImage(GUEST, { name: 'a', live: true });
  {
    await using witness = await lab.witness(GUEST);
    const { offsetMiB, mib } = REGION;
    const rate = (ms: number) => (mib * MIB) / 1000 / ms;
    add(
      'write by the guest',
      by,
      'MB/s',
      rate((await timed(() => witness.write(DISK, offsetMiB, mib, round))).ms),
    );
    add('read by the guest', by, 'MB/s', rate((await timed(() => witness.read(DISK, offsetMiB, mib))).ms));
  }
  if (by !== 'no checksums' && (await isSummed(image)))
    throw new Error('the sums were made before anything could be measured beside them');
  const { pauseMs } = await client.createSaveImage(GUEST, { name: 'b', live: true });
  if (pauseMs !== null) add('pause beside checksums', by, 'ms', pauseMs);
  for (const name of ['b', 'a']) await client.deleteSaveImage(GUEST, name);
}

/** From the end of a save until its memory file is summed, then all of the image compared with that. */
async function measureRates(lab: Lab, by: string, add: Add): Promise<void> {
  const { client } = lab;
  const image = await client.createSaveImage(GUEST, { name: 'c', live: true });
  const bytes = image.storedBytes;
  const { ms: sumMs } = await timed(() => summed(image));
  add('checksums in the background, rate', by, 'MB/s', bytes / 1000 / sumMs);
  if (by === UNLIMITED) {
    await run('sync', []);
    const { ms } = await timed(() => client.verifySaveImage(GUEST, 'c'));
    add('verify, rate', 'Stasis', 'MB/s', bytes / 1000 / ms);
  }
  await client.deleteSaveImage(GUEST, 'c');
}

async function summed(image: Image): Promise<void> {
  const giveUp = performance.now() + SUM_PATIENCE_MS;
  while (!(await isSummed(image))) {
    if (performance.now() > giveUp) throw new Error(`no checksum of ${image.name} was made`);
    await delay(10); // nothing announces a checksum: nobody waits for one
  }
}

async function isSummed({ memoryFile }: Image): Promise<boolean> {
  try {
    const text = await readFile(join(dirname(memoryFile), 'manifest.json'), 'utf8');
    return fromStored<Manifest>(text).checksums?.memory !== undefined;
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return false; // it follows the catalog
    throw error;
  }
}
