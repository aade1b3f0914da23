/**
 * Many clients at once: 1,000 event streams and 200 requests a second against a daemon with 200 guests and 10,000 images. How long
 * they wait, what the daemon's memory does, and whether a live save's pause minds. Saves with and without the clients take turns.
 */
import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { availableParallelism, loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { Lab } from '../test/support/lab.ts';
import { crowd } from './crowd.ts';
import type { ClientsTask, Waits } from './clients/generator.ts';

const GUESTS = 200;
const IMAGES = 10_000;
const DIRTY_MBPS = 20;

const { values: options } = parseArgs({
  options: {
    streams: { type: 'string', default: '1000' },
    rate: { type: 'string', default: '200' },
    rounds: { type: 'string', default: '5' },
    saves: { type: 'string', default: '3' },
    seconds: { type: 'string', default: '20' },
  },
});
const wanted = {
  streams: Number(options.streams),
  rate: Number(options.rate),
  rounds: Number(options.rounds),
  saves: Number(options.saves),
  seconds: Number(options.seconds),
};

async function measure(lab: Lab): Promise<void> {
  const { streams, rate, rounds, saves, seconds } = wanted;
  if (saves > 0) {
    const witness = await lab.running('live', { disks: 1 });
    await witness.dirty(DIRTY_MBPS, 'touch');
    await save(lab); // nobody's first one counts
  }
  const pauses: Record<'alone' | 'crowded', number[]> = { alone: [], crowded: [] };
  const waits: Waits[] = [];
  const resident = [await residentMiB(lab)];
  for (let round = 0; round < rounds; round += 1) {
    for (let count = 0; count < saves; count += 1) pauses.alone.push(await save(lab));
    await using clients = await Clients.start({ socket: lab.paths.socket, streams, rate, guests: GUESTS });
    const longEnough = delay(seconds * 1000);
    for (let count = 0; count < saves; count += 1) pauses.crowded.push(await save(lab));
    await longEnough;
    waits.push(await clients.stop());
    resident.push(await residentMiB(lab));
  }
  report(waits);
  print(
    `the daemon's resident memory, MiB, before and after each round: ${resident.map(Math.round).join(', ')}`,
  );
  if (saves === 0) return;
  const ratio = median(pauses.crowded) / median(pauses.alone);
  print(
    `pause of a live save, ms: ${spread(pauses.alone)} alone, ${spread(pauses.crowded)} with them: ${ratio.toFixed(2)} times`,
  );
}

/** @returns its pause in ms */
async function save(lab: Lab): Promise<number> {
  const { pauseMs } = await lab.client.createSaveImage('live', { name: 'point', live: true });
  await lab.client.deleteSaveImage('live', 'point');
  return pauseMs ?? Number.NaN;
}

/** The generator of clients, a process of its own. */
class Clients implements AsyncDisposable {
  readonly #process: ChildProcess;

  private constructor(process: ChildProcess) {
    this.#process = process;
  }

  /** Resolves when all streams are open and requests have begun. */
  static async start(task: ClientsTask): Promise<Clients> {
    const child = fork(join(import.meta.dirname, 'clients/generator.ts'), [JSON.stringify(task)]);
    await once(child, 'message');
    return new Clients(child);
  }

  async stop(): Promise<Waits> {
    const told = once(this.#process, 'message');
    this.#process.send('stop');
    const [waits]: Waits[] = await told;
    if (waits === undefined) throw new Error('the clients did not tell how long they waited');
    return waits;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#process.exitCode !== null) return;
    const ended = once(this.#process, 'exit');
    this.#process.kill();
    await ended;
  }
}

function report(waits: readonly Waits[]): void {
  const kinds = new Set(waits.flatMap(({ requests }) => Object.keys(requests)));
  const all = waits.flatMap(({ requests }) => Object.values(requests).flat());
  print(`all requests, ms: ${percentiles(all)}`);
  for (const kind of kinds)
    print(`  ${kind}: ${percentiles(waits.flatMap(({ requests }) => requests[kind] ?? []))}`);
  const sum = (of: (each: Waits) => number) => waits.reduce((total, each) => total + of(each), 0);
  print(
    `  failed: ${sum(({ failed }) => failed)}; streams that broke: ${sum(({ broken }) => broken)}; messages that came: ${sum(({ messages }) => messages)}`,
  );
}

function percentiles(values: readonly number[]): string {
  const sorted = Float64Array.from(values).toSorted();
  const at = (part: number) =>
    (sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? 0).toFixed(1);
  return `p50 ${at(0.5)}, p99 ${at(0.99)}, most ${at(1)} (${sorted.length})`;
}

function spread(values: readonly number[]): string {
  return `${median(values).toFixed(1)} (${Math.min(...values).toFixed(1)}–${Math.max(...values).toFixed(1)})`;
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}

async function residentMiB(lab: Lab): Promise<number> {
  return (await lab.client.hostStatus()).residentBytes / 1024 ** 2;
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}

const home = await mkdtemp(join(tmpdir(), 'stasis-clients-'));
try {
  await crowd(home, GUESTS, IMAGES);
  await using lab = await Lab.open(home);
  print(
    `${GUESTS} guests, ${IMAGES} images, ${wanted.streams} event streams, ${wanted.rate} requests/s; ${availableParallelism()} cores, load ${loadavg()[0]?.toFixed(1)}`,
  );
  await measure(lab);
} finally {
  await rm(home, { recursive: true, force: true });
}
