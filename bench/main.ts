/**
 * Stasis beside what somebody would use in its place, in turn, in one run. README.md says what is measured and how; the
 * files of measure/ are one figure each.
 */
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { parseArgs } from 'node:util';
import { drawCharts } from './charts.ts';
import { Figures, type Results } from './figures.ts';
import { prepare } from './load.ts';
import { describeMachine } from './machine.ts';
import { measureChain } from './measure/chain.ts';
import { measureClones } from './measure/clones.ts';
import { measureHugePages, whyNoHugePages } from './measure/huge-pages.ts';
import { measureLazy } from './measure/lazy.ts';
import { measurePause } from './measure/pause.ts';
import { measureQuiesce } from './measure/quiesce.ts';
import { measureRestore } from './measure/restore.ts';
import { measureSpawn } from './measure/spawn.ts';
import { measureStalls } from './measure/stalls.ts';
import { measureStopped } from './measure/stopped.ts';
import { measureVerify } from './measure/verify.ts';
import { Bare } from './peers/bare.ts';
import { Libvirt } from './peers/libvirt.ts';
import type { Peer } from './peers/peer.ts';
import { Stasis } from './peers/stasis.ts';
import { fullReport, summary } from './report.ts';
import { Roster } from './roster.ts';

const ROOT = join(import.meta.dirname, '..');
const DOCS = join(ROOT, 'docs/bench');
const STALLS_DIRTY_MBPS = 200;
/** All of its images are kept, so this guest is a small one. */
const CHAIN_MEMORY_MIB = 128;
const QUIESCE_MEMORY_MIB = 512;
/** Larger, so that its checksums take longer than what is measured beside them. */
const VERIFY_MEMORY_MIB = 1024;
const FIGURES = [
  'pause',
  'stalls',
  'spawn',
  'clones',
  'restore',
  'stopped',
  'lazy',
  'chain',
  'quiesce',
  'verify',
] as const;
/** Those that are measured on guests of their own. */
const APART: readonly string[] = ['chain', 'quiesce', 'verify'];

const { values: options } = parseArgs({
  options: {
    'memory-mib': { type: 'string' },
    dirty: { type: 'string' },
    rounds: { type: 'string' },
    only: { type: 'string', default: FIGURES.join(',') },
    quick: { type: 'boolean', default: false },
    json: { type: 'string' },
    charts: { type: 'string' },
    publish: { type: 'boolean', default: false },
    from: { type: 'string' },
  },
});

const memories = numbers(options['memory-mib'] ?? (options.quick ? '1024' : '1024,4096'));
const rates = numbers(options.dirty ?? (options.quick ? '0,200' : '0,50,200,600'));
const rounds = Number(options.rounds ?? (options.quick ? 1 : 5));
const wanted = new Set(options.only.split(','));

/** Ctrl-C: the present turn is the last, and nothing is left behind. */
const interruption = new AbortController();
for (const name of ['SIGINT', 'SIGTERM'] as const)
  process.once(name, () => interruption.abort(new Error(`${name}: all is being ended`)));

async function main(): Promise<void> {
  const unknown = [...wanted].filter((name) => !FIGURES.some((figure) => figure === name));
  if (unknown.length > 0) throw new Error(`--only: ${unknown.join(', ')} is none of ${FIGURES.join(', ')}`);
  const results = options.from === undefined ? await measure() : await readResults(options.from);
  process.stdout.write(`${fullReport(results)}\n`);
  if (options.json !== undefined) await writeJson(options.json, results);
  if (options.charts !== undefined) await writeCharts(options.charts, results);
  if (options.publish) await publish(results);
}

async function measure(): Promise<Results> {
  const figures = new Figures();
  const skipped: string[] = [];
  const leftOut = (reason: string) => {
    skipped.push(reason);
    say(`left out: ${reason}`);
  };
  const whyNoLibvirt = await Libvirt.whyNot();
  const withLibvirt = whyNoLibvirt === undefined;
  if (!withLibvirt) leftOut(`libvirt: ${whyNoLibvirt}`);
  const directory = await mkdtemp(join(tmpdir(), 'stasis-bench-'));
  try {
    if (FIGURES.some((figure) => !APART.includes(figure) && wanted.has(figure)))
      for (const memoryMiB of memories)
        await measureMemory({ directory, memoryMiB, withLibvirt, leftOut, figures });
    if (wanted.has('verify')) {
      say('checksums');
      await measureVerify(directory, { memoryMiB: VERIFY_MEMORY_MIB }, rounds, figures, interruption.signal);
    }
    if (wanted.has('chain')) {
      say('a chain of live saves');
      const marks = options.quick ? [1, 10] : [1, 10, 50, 100];
      await measureChain(directory, { memoryMiB: CHAIN_MEMORY_MIB }, marks, figures, interruption.signal);
    }
    if (wanted.has('quiesce')) {
      say('live saves with frozen file systems');
      await measureQuiesce(
        directory,
        { memoryMiB: QUIESCE_MEMORY_MIB },
        4 * rounds,
        figures,
        interruption.signal,
      );
    }
    return {
      measuredAt: new Date().toISOString(),
      command: ['npm run bench --', ...process.argv.slice(2)].join(' '),
      machine: await describeMachine(directory),
      skipped,
      series: figures.series,
    };
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

interface Part {
  readonly directory: string;
  readonly memoryMiB: number;
  readonly withLibvirt: boolean;
  readonly leftOut: (reason: string) => void;
  readonly figures: Figures;
}

/** Everything about guests of one size. A guest that was restored mapped is another one than before: that comes last. */
async function measureMemory({ directory, memoryMiB, withLibvirt, leftOut, figures }: Part): Promise<void> {
  await using stack = new AsyncDisposableStack();
  const stasis = stack.use(await Stasis.create(directory, memoryMiB));
  const bare = stack.use(await Bare.create(directory, memoryMiB));
  const peers: Peer[] = [stasis, bare];
  if (withLibvirt) peers.push(stack.use(await Libvirt.create(memoryMiB)));
  const all = new Roster(peers, leftOut, interruption.signal);
  await all.each(async (peer) => {
    say(`${memoryMiB} MiB: starting the guest of ${peer.name}`);
    await peer.boot();
    await prepare(peer, memoryMiB / 2);
  });
  const setting = { memoryMiB };
  // A large guest takes long, and is there to show what depends on size.
  const times = memoryMiB > 1024 ? Math.min(rounds, 3) : rounds;
  const step = async (name: (typeof FIGURES)[number], what: string, body: () => Promise<void>) => {
    if (!wanted.has(name)) return;
    interruption.signal.throwIfAborted();
    say(`${memoryMiB} MiB: ${what}`);
    try {
      await body();
    } catch (error) {
      // What else there is to measure took long, or will: it isn't given up for this.
      interruption.signal.throwIfAborted();
      leftOut(`${what} at ${memoryMiB} MiB failed: ${String(error)}`);
      process.exitCode = 1;
    }
  };
  for (const dirtyMbps of rates)
    await step('pause', `pause, ${dirtyMbps} MB/s`, () =>
      measurePause(all, { memoryMiB, dirtyMbps }, rounds, figures),
    );
  const fastest = { memoryMiB, dirtyMbps: Math.max(...rates) };
  const whyNot = await whyNoHugePages(fastest);
  if (whyNot === undefined)
    await step('pause', `pause with huge pages, ${fastest.dirtyMbps} MB/s`, () =>
      measureHugePages(directory, fastest, times, figures, interruption.signal),
    );
  else if (wanted.has('pause')) leftOut(whyNot);
  await step('stalls', 'stalls', () =>
    measureStalls(all, { memoryMiB, dirtyMbps: STALLS_DIRTY_MBPS }, times, figures),
  );
  await step('spawn', 'start of QEMU to guest running', () =>
    measureSpawn(stasis, bare, setting, times, figures),
  );
  if (memoryMiB <= 1024)
    await step('clones', 'ten clones', () => measureClones(stasis, setting, Math.min(rounds, 3), figures));
  await step('stopped', 'save and stop', () => measureStopped(all, setting, times, figures));
  await step('restore', 'restore', () => measureRestore(all, setting, times, figures));
  await step('lazy', 'lazy restore', () => measureLazy(directory, setting, times, figures));
}

/** Writes what the documents show: docs/bench, and the README's block. */
async function publish(results: Results): Promise<void> {
  await writeJson(join(DOCS, 'results.json'), results);
  await writeCharts(DOCS, results);
  await writeFile(join(DOCS, 'results.md'), fullReport(results));
  const readme = join(ROOT, 'README.md');
  const text = await readFile(readme, 'utf8');
  const block = /(?<=<!-- bench -->\n\n).*?(?=\n\n<!-- \/bench -->)/s;
  if (!block.test(text)) throw new Error(`${readme} has no block between <!-- bench --> and <!-- /bench -->`);
  await writeFile(
    readme,
    text.replace(block, () => summary(results)),
  );
}

async function writeJson(path: string, results: Results): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, `${JSON.stringify(results, null, 2)}\n`);
}

async function writeCharts(directory: string, results: Results): Promise<void> {
  await mkdir(directory, { recursive: true });
  for (const [name, svg] of drawCharts(results)) await writeFile(join(directory, name), svg);
}

async function readResults(path: string): Promise<Results> {
  // What this program wrote.
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion
  return JSON.parse(await readFile(path, 'utf8')) as Results;
}

function numbers(list: string): number[] {
  return list.split(',').map(Number);
}

function say(what: string): void {
  process.stderr.write(`${new Date().toISOString().slice(11, 19)}  ${what}\n`);
}

await main();
