/**
 * Pause, save time, restore time and stored bytes: Stasis beside the same work done by hand over QMP, in turn, in one
 * run. Prints medians with minimum and maximum, and the ratio of the medians.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { Lab } from '../test/support/lab.ts';
import type { Witness } from '../test/support/witness.ts';
import { BareGuest } from './bare.ts';

const GUEST = 'bench';
const { values: options } = parseArgs({
  options: {
    'memory-mib': { type: 'string', default: '1024' },
    'fill-mib': { type: 'string', default: '512' },
    rounds: { type: 'string', default: '5' },
    'dirty-mbps': { type: 'string', default: '0' },
    json: { type: 'boolean', default: false },
  },
});

type Who = 'stasis' | 'bare';

/** Everything measured, by what and by whom, in the order of first appearance. */
class Figures {
  readonly #values = new Map<string, Record<Who, number[]>>();

  add(what: string, who: Who, value: number): void {
    const row = this.#values.get(what) ?? { stasis: [], bare: [] };
    row[who].push(value);
    this.#values.set(what, row);
  }

  rows(): { what: string; stasis: Spread; bare: Spread; ratio: number }[] {
    return [...this.#values].map(([what, row]) => {
      const [stasis, bare] = [spread(row.stasis), spread(row.bare)];
      return { what, stasis, bare, ratio: stasis.median / bare.median };
    });
  }
}

interface Spread {
  readonly median: number;
  readonly min: number;
  readonly max: number;
}

function spread(values: readonly number[]): Spread {
  const sorted = values.toSorted((a, b) => a - b);
  return {
    median: sorted[Math.floor(sorted.length / 2)] ?? Number.NaN,
    min: sorted[0] ?? Number.NaN,
    max: sorted.at(-1) ?? Number.NaN,
  };
}

async function main(): Promise<void> {
  const memoryMiB = Number(options['memory-mib']);
  const directory = await mkdtemp(join(tmpdir(), 'stasis-bench-'));
  const figures = new Figures();
  try {
    await using lab = await Lab.create(directory);
    await using bare = new BareGuest(join(directory, 'bare'), memoryMiB);
    await prepare(await lab.running(GUEST, { memory: `${memoryMiB}MiB` }));
    await bare.boot();
    await prepare(await bare.witness());
    for (let round = 0; round < Number(options.rounds); round += 1) {
      await stasisRound(lab, figures);
      await bareRound(bare, figures);
    }
    print(figures);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

async function prepare(witness: Witness): Promise<void> {
  await witness.fill(1, Number(options['fill-mib']));
  await witness.dirty(Number(options['dirty-mbps']));
  await witness.close();
}

async function stasisRound(lab: Lab, figures: Figures): Promise<void> {
  const add = (what: string, value: number) => figures.add(what, 'stasis', value);
  const live = await timed(() => lab.client.createSaveImage(GUEST, { name: 'live', live: true }));
  add('live save: pause, ms', live.result.pauseMs ?? Number.NaN);
  add('live save: time, ms', live.ms);
  add('live save: stored, MiB', live.result.storedBytes / 1024 ** 2);
  const restore = await timed(() => lab.client.restoreSaveImage(GUEST, 'live'));
  add('restore: time, ms', restore.ms);
  add(
    'restore: until the guest answers, ms',
    restore.ms + (await timed(async () => (await lab.witness(GUEST)).close())).ms,
  );
  await lab.client.deleteSaveImage(GUEST, 'live');

  const stopped = await timed(() => lab.client.createSaveImage(GUEST));
  add('save and stop: time, ms', stopped.ms);
  add('save and stop: stored, MiB', stopped.result.storedBytes / 1024 ** 2);
  add('start from it: time, ms', (await timed(() => lab.client.start(GUEST))).ms);
}

async function bareRound(bare: BareGuest, figures: Figures): Promise<void> {
  const add = (what: string, value: number) => figures.add(what, 'bare', value);
  const live = await bare.saveLive();
  add('live save: pause, ms', live.pauseMs);
  add('live save: time, ms', live.saveMs);
  add('live save: stored, MiB', live.storedBytes / 1024 ** 2);
  const restore = await timed(() => bare.restore(live, false));
  add('restore: time, ms', restore.ms);
  add(
    'restore: until the guest answers, ms',
    restore.ms + (await timed(async () => (await bare.witness()).close())).ms,
  );
  await rm(live.file);

  const stopped = await bare.saveAndStop();
  add('save and stop: time, ms', stopped.saveMs);
  add('save and stop: stored, MiB', stopped.storedBytes / 1024 ** 2);
  add('start from it: time, ms', (await timed(() => bare.restore(stopped, true))).ms);
  await rm(stopped.file);
}

async function timed<T>(work: () => Promise<T>): Promise<{ ms: number; result: T }> {
  const begin = performance.now();
  const result = await work();
  return { ms: performance.now() - begin, result };
}

function print(figures: Figures): void {
  if (options.json) return void process.stdout.write(`${JSON.stringify(figures.rows(), null, 2)}\n`);
  const cell = ({ median, min, max }: Spread) => `${median.toFixed(0)} (${min.toFixed(0)}–${max.toFixed(0)})`;
  const lines = figures
    .rows()
    .map(
      ({ what, stasis, bare, ratio }) =>
        `| ${what} | ${cell(stasis)} | ${cell(bare)} | ${ratio.toFixed(2)} |`,
    );
  const setting = `${options['memory-mib']} MiB guest, ${options['fill-mib']} MiB random, two disks, ${options['dirty-mbps']} MB/s dirtied, ${options.rounds} rounds`;
  process.stdout.write(
    [
      `${setting}: median (min–max)`,
      '',
      '| | Stasis | bare QMP | ratio |',
      '|---|---|---|---|',
      ...lines,
      '',
    ].join('\n'),
  );
}

await main();
