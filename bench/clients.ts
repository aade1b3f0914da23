/**
 * Many clients at once: 1,000 event streams and 200 requests a second against a daemon with 200 guests and 10,000 images. How long
 * they wait, what the daemon's memory does, and whether a live save's pause minds. Saves that nobody disturbs take turns with saves
 * while the clients are the daemon's, and while they are those of a server that does nothing but answer (clients/floor.ts): what
 * they cost then is the machine's doing.
 */
import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { availableParallelism, loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { Lab } from '../test/support/lab.ts';
import { crowd } from './crowd.ts';
import type { FloorTask } from './clients/floor.ts';
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
  const pauses = { alone: [] as number[], daemon: [] as number[], floor: [] as number[] };
  const waits = { daemon: [] as Waits[], floor: [] as Waits[] };
  const busy: number[] = [];
  const resident = [await residentMiB(lab)];
  /** As many saves as are wanted, and not less than so long, while there are clients. */
  const under = async (socket: string, whose: 'daemon' | 'floor'): Promise<Waits> => {
    await using clients = await Clients.start({ socket, streams, rate, guests: GUESTS });
    const longEnough = delay(seconds * 1000);
    for (let count = 0; count < saves; count += 1) pauses[whose].push(await save(lab));
    await longEnough;
    const told = await clients.stop();
    waits[whose].push(told);
    return told;
  };
  for (let round = 0; round < rounds; round += 1) {
    for (let count = 0; count < saves; count += 1) pauses.alone.push(await save(lab));
    const [begin, before] = [performance.now(), await processorMs(lab)];
    const { messages } = await under(lab.paths.socket, 'daemon');
    const tookMs = performance.now() - begin;
    busy.push(((await processorMs(lab)) - before) / tookMs);
    resident.push(await residentMiB(lab));
    const socket = join(lab.home, `floor-${round}.sock`);
    const messagesPerSecond = (messages / Math.max(1, streams) / tookMs) * 1000;
    await using floor = new AsyncDisposableStack();
    floor.use(await start('floor.ts', { socket, daemon: lab.paths.socket, messagesPerSecond }));
    await under(socket, 'floor');
  }
  print('the daemon:');
  report(waits.daemon);
  print('a server that does nothing but answer:');
  report(waits.floor);
  print(
    `the daemon's resident memory, MiB, before and after each round: ${resident.map(Math.round).join(', ')}`,
  );
  print(
    `one processor's share that the daemon took: ${busy.map((part) => `${Math.round(part * 100)} %`).join(', ')}`,
  );
  if (saves === 0) return;
  const times = (whose: 'daemon' | 'floor') => (median(pauses[whose]) / median(pauses.alone)).toFixed(2);
  print(
    `pause of a live save, ms: ${spread(pauses.alone)} alone, ${spread(pauses.daemon)} with the daemon's clients: ${times('daemon')} times, ` +
      `${spread(pauses.floor)} with as many of another's: ${times('floor')} times`,
  );
}

/** @returns its pause in ms */
async function save(lab: Lab): Promise<number> {
  const { pauseMs } = await lab.client.createSaveImage('live', { name: 'point', live: true });
  await lab.client.deleteSaveImage('live', 'point');
  return pauseMs ?? Number.NaN;
}

/** The generator of clients. */
class Clients implements AsyncDisposable {
  readonly #process: Part;

  private constructor(process: Part) {
    this.#process = process;
  }

  /** Resolves when all streams are open and requests have begun. */
  static async start(task: ClientsTask): Promise<Clients> {
    return new Clients(await start('generator.ts', task));
  }

  async stop(): Promise<Waits> {
    const { child } = this.#process;
    const told = once(child, 'message');
    child.send('stop');
    const [waits]: Waits[] = await told;
    if (waits === undefined) throw new Error('the clients did not tell how long they waited');
    return waits;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#process[Symbol.asyncDispose]();
  }
}

interface Part extends AsyncDisposable {
  readonly child: ChildProcess;
}

/** A process of its own, of this bench's. Resolves when it says that it is ready. */
async function start(file: string, task: ClientsTask | FloorTask): Promise<Part> {
  const child = fork(join(import.meta.dirname, 'clients', file), [JSON.stringify(task)]);
  const isOpen = await Promise.race([
    once(child, 'message').then(() => true),
    once(child, 'exit').then(() => false),
  ]);
  if (!isOpen) throw new Error(`${file} ended before it had begun`);
  return {
    child,
    [Symbol.asyncDispose]: async () => {
      if (child.exitCode !== null) return;
      const ended = once(child, 'exit');
      child.kill();
      await ended;
    },
  };
}

function report(waits: readonly Waits[]): void {
  const kinds = new Set(waits.flatMap(({ requests }) => Object.keys(requests)));
  const all = waits.flatMap(({ requests }) => Object.values(requests).flat());
  print(`all requests, ms: ${percentiles(all)}`);
  for (const kind of kinds)
    print(`  ${kind}: ${percentiles(waits.flatMap(({ requests }) => requests[kind] ?? []))}`);
  const sum = (of: (each: Waits) => number) => waits.reduce((total, each) => total + of(each), 0);
  print(
    `  failed: ${sum(({ failed }) => failed)}; unanswered: ${sum(({ unanswered }) => unanswered)}; streams that broke: ${sum(({ broken }) => broken)}; messages that came: ${sum(({ messages }) => messages)}`,
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

/** What the daemon has used of the processors, user and system (proc_pid_stat(5), in ticks of 10 ms). */
async function processorMs(lab: Lab): Promise<number> {
  const { pid } = await lab.client.hostStatus();
  const fields = (await readFile(`/proc/${pid}/stat`, 'utf8')).split(') ').at(-1)?.split(' ') ?? [];
  return (Number(fields[11]) + Number(fields[12])) * 10;
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
