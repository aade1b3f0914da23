/**
 * Many live saves in a row on one guest, all of them kept, so that its disk becomes a chain of as many layers: what that does to a
 * save and to what the guest reads. Once with the chain left as it is, once as Stasis keeps it by itself.
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

const KINDS = { 'chain left alone': 'disks: { compactAboveDepth: false }\n', 'chain compacted': '' } as const;

/** @param marks after so many saves the guest is looked at; the last is the end */
export async function measureChain(
  directory: string,
  setting: Setting,
  marks: readonly number[],
  figures: Figures,
  signal: AbortSignal,
): Promise<void> {
  for (const [by, settings] of Object.entries(KINDS)) {
    await using lab = await openLab(directory, settings);
    const witness = await lab.running(GUEST, { disks: 1, memory: `${setting.memoryMiB}MiB` });
    await witness.write(DISK, LOWEST.offsetMiB, LOWEST.mib, 1);
    await measureReads(witness, 'before any save', { setting, by, figures });
    for (let save = 1; save <= Math.max(...marks); save += 1) {
      signal.throwIfAborted();
      await witness.write(DISK, CHANGING.offsetMiB + (save % CHANGING.mib), 1, save);
      const image = await lab.client.createSaveImage(GUEST, { name: `save-${save}`, live: true });
      const mark = marks.find((each) => save <= each && save > each - RECENT);
      if (mark !== undefined && image.pauseMs !== null) {
        figures.add(`pause in a chain, save ${mark}`, setting, by, 'ms', image.pauseMs);
        figures.add(`live save in a chain, save ${mark}`, setting, by, 'ms', image.saveMs);
      }
      if (marks.includes(save)) {
        await idle(lab);
        await measureReads(witness, `save ${save}`, { setting, by, figures });
        const depth = await depthOf(lab);
        figures.note(readFigure(`save ${save}`), setting, by, 'MB/s', `${depth} layers`);
      }
    }
    await witness.close();
    for (const save of [1, Math.max(...marks)]) {
      const { ms } = await timed(() => lab.client.restoreSaveImage(GUEST, `save-${save}`));
      figures.add(`restore in a chain, save ${save}`, setting, by, 'ms', ms);
    }
  }
}

async function openLab(directory: string, settings: string): Promise<Lab> {
  const home = await mkdtemp(join(directory, 'chain-'));
  const { config } = sessionPaths({ STASIS_HOME: home });
  await mkdir(config, { recursive: true });
  await writeFile(join(config, 'stasis.yaml'), settings);
  return Lab.open(home);
}

interface Series {
  readonly setting: Setting;
  readonly by: string;
  readonly figures: Figures;
}

/** The guest reads past its own cache: through all of QEMU's layers, from the host's cache in the end. */
async function measureReads(witness: Witness, when: string, { setting, by, figures }: Series): Promise<void> {
  await run('sync', []);
  await witness.read(DISK, LOWEST.offsetMiB, LOWEST.mib); // QEMU's own caches of the layers, and the emulator's of the guest's code
  for (let times = 0; times < READS; times += 1) {
    const { ms } = await timed(() => witness.read(DISK, LOWEST.offsetMiB, LOWEST.mib));
    figures.add(readFigure(when), setting, by, 'MB/s', (LOWEST.mib * 1024 ** 2) / 1000 / ms);
  }
}

function readFigure(when: string): string {
  return `read through a chain, ${when}`;
}

/** What Stasis does by itself after a save is done with. */
async function idle(lab: Lab): Promise<void> {
  for (const { id, state } of await lab.client.listOperations())
    if (state === 'running') await lab.client.followOperation(id);
}

async function depthOf(lab: Lab): Promise<number> {
  const [head] = (await lab.client.getGuest(GUEST)).disks;
  if (head === undefined) throw new Error('the guest has no disk');
  const { stdout } = await run('qemu-img', ['info', '-U', '--backing-chain', '--output=json', head.head]);
  return fromStored<unknown[]>(stdout).length;
}
