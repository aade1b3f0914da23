/**
 * Many live saves in a row on one guest, all of them kept, so that its disk becomes a chain of as many layers: what that does to a
 * save and to what the guest reads. Once with the chain left as it is, once with the chain shortened as often as Stasis
 * does by itself when the guest is left in peace for a while.
 */
import { mkdir, mkdtemp, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { sessionPaths } from '../../src/paths.ts';
import { fromStored } from '../../src/stored.ts';
import { Lab } from '../../test/support/lab.ts';
import type { Witness } from '../../test/support/witness.ts';
import type { Figures, Setting } from '../figures.ts';
import { run, timed } from '../peers/peer.ts';

const GUEST = 'chain';
const DISK = 'vda';
/** The saves up to a mark whose pauses count for it: one alone says little. */
const RECENT = 5;
const READS = 5;
/** Written before the first save and never again: it lies in the lowest layer, below all others. */
const LOWEST = { offsetMiB: 2, mib: 32 } as const;
/** Between two saves one MiB of this part is written: each layer has something that the others don't. */
const CHANGING = { offsetMiB: 36, mib: 24 } as const;

/** The depth above which a chain is shortened, by default. */
const COMPACT_EVERY = 20;
const KINDS = ['left alone', `compacted every ${COMPACT_EVERY} saves`] as const;
/** The bench itself says when. */
const SETTINGS = 'disks: { compactAboveDepth: false }\n';

/** A guest whose disk becomes a chain, and where its figures go. */
interface Chain {
  readonly lab: Lab;
  readonly witness: Witness;
  readonly setting: Setting;
  readonly by: string;
  readonly figures: Figures;
}

/** @param marks after so many saves the guest is looked at; the last is the end */
export async function measureChain(
  directory: string,
  setting: Setting,
  marks: readonly number[],
  figures: Figures,
  signal: AbortSignal,
): Promise<void> {
  for (const by of KINDS) {
    await using lab = await openLab(directory);
    const witness = await lab.running(GUEST, { disks: 1, memory: `${setting.memoryMiB}MiB` });
    const chain = { lab, witness, setting, by, figures };
    await witness.write(DISK, LOWEST.offsetMiB, LOWEST.mib, 1);
    await measureReads(chain, 'before any save');
    for (let save = 1; save <= Math.max(...marks); save += 1) {
      signal.throwIfAborted();
      await measureSave(chain, save, marks);
      if (by !== 'left alone' && save % COMPACT_EVERY === 0) await measureCompaction(chain);
      if (marks.includes(save)) await measureReads(chain, `save ${save}`);
    }
    for (const save of [1, Math.max(...marks)]) await measureRestore(chain, save);
  }
}

async function openLab(directory: string): Promise<Lab> {
  const home = await mkdtemp(join(directory, 'chain-'));
  const { config } = sessionPaths({ STASIS_HOME: home });
  await mkdir(config, { recursive: true });
  await writeFile(join(config, 'stasis.yaml'), SETTINGS);
  return Lab.open(home);
}

async function measureSave(chain: Chain, save: number, marks: readonly number[]): Promise<void> {
  const { lab, witness, setting, by, figures } = chain;
  await witness.write(DISK, CHANGING.offsetMiB + (save % CHANGING.mib), 1, save);
  const { pauseMs, saveMs } = await lab.client.createSaveImage(GUEST, { name: `save-${save}`, live: true });
  const mark = marks.find((each) => save <= each && save > each - RECENT);
  if (mark === undefined || pauseMs === null) return;
  figures.add(`pause in a chain, save ${mark}`, setting, by, 'ms', pauseMs);
  figures.add(`live save in a chain, save ${mark}`, setting, by, 'ms', saveMs);
}

async function measureCompaction({ lab, setting, by, figures }: Chain): Promise<void> {
  const { ms, result } = await timed(() => lab.cli(['disk', 'compact', GUEST]));
  if (result.status !== 0) throw new Error(`stasis disk compact: ${result.stderr}`);
  figures.add(`compaction of a chain of ${COMPACT_EVERY} saves`, setting, by, 'ms', ms);
}

/** The guest reads past its own cache: through all of QEMU's layers, from the host's cache in the end. */
async function measureReads({ lab, witness, setting, by, figures }: Chain, when: string): Promise<void> {
  const figure = `read through a chain, ${when}`;
  const read = () => witness.read(DISK, LOWEST.offsetMiB, LOWEST.mib);
  await run('sync', []);
  await read(); // QEMU's own caches of the layers, and the emulator's of the guest's code
  for (let times = 0; times < READS; times += 1) {
    const { ms } = await timed(read);
    figures.add(figure, setting, by, 'MB/s', (LOWEST.mib * 1024 ** 2) / 1000 / ms);
  }
  figures.note(figure, setting, by, 'MB/s', `${await depthOf(lab)} layers`);
}

async function measureRestore({ lab, setting, by, figures }: Chain, save: number): Promise<void> {
  const { ms } = await timed(() => lab.client.restoreSaveImage(GUEST, `save-${save}`));
  figures.add(`restore in a chain, save ${save}`, setting, by, 'ms', ms);
}

async function depthOf(lab: Lab): Promise<number> {
  const [head] = (await lab.client.getGuest(GUEST)).disks;
  if (head === undefined) throw new Error('the guest has no disk');
  const { stdout } = await run('qemu-img', ['info', '-U', '--backing-chain', '--output=json', head.head]);
  return fromStored<unknown[]>(stdout).length;
}
