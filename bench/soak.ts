/**
 * Hours of activity in minutes: one daemon, two guests, operation after operation. Tells whether its memory and its file descriptors
 * stay what they were. `npm run soak -- [--minutes 10] [--heap]`; with `--heap` what there is more of in its heap, object by object.
 */
import { readdir } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { Lab } from '../test/support/lab.ts';
import { INSPECTED, grown, Inspector, type Census } from './inspector.ts';

const MIB = 1024 ** 2;
/** Until then caches fill, and V8 compiles what is used often. */
const WARM_UP = 0.5;
const SAMPLE_EVERY_ROUNDS = 5;
const KINDS_TOLD = 15;
const GUEST = 'web1';
const CLONE = 'copy';

const { values } = parseArgs({
  options: { minutes: { type: 'string', default: '10' }, heap: { type: 'boolean', default: false } },
});
const lastMs = Number(values.minutes) * 60_000;

interface Sample {
  readonly operations: number;
  readonly rssMiB: number;
  readonly heapMiB: number;
  readonly externalMiB: number;
  readonly descriptors: number;
}

await using lab = await Lab.create(undefined, INSPECTED);
const { client } = lab;
using inspector = await Inspector.in(await lab.log());
await (await lab.running(GUEST, { system: 'bare', disks: 1 })).close();
const following = new AbortController();
const followed = follow(following.signal);

const samples: Sample[] = [];
let operations = 0;
let begun: Census | undefined;
const began = performance.now();
for (let round = 1; performance.now() - began < lastMs; round += 1) {
  await live(round);
  if (round % SAMPLE_EVERY_ROUNDS !== 0) continue;
  const sample = await look();
  samples.push(sample);
  say(
    `${minutes().padStart(5)} min, ${operations} operations: ${sample.rssMiB.toFixed(0)} MiB resident, ` +
      `${sample.heapMiB.toFixed(1)} of heap, ${sample.externalMiB.toFixed(1)} external, ${sample.descriptors} descriptors`,
  );
  if (values.heap && begun === undefined && performance.now() - began > lastMs * WARM_UP)
    begun = await inspector.census();
}
if (begun !== undefined) for (const line of grown(begun, await inspector.census(), KINDS_TOLD)) say(line);
following.abort();
await followed;
report();

/** What a busy host does to one guest. */
async function live(round: number): Promise<void> {
  const name = `round${round}`;
  const method = (['mapped', 'lazy', 'eager'] as const)[round % 3] ?? 'mapped';
  await done(client.createSaveImage(GUEST, { name, live: true }));
  await done(client.verifySaveImage(GUEST, name));
  await done(client.restoreSaveImage(GUEST, name, { method }));
  await done(client.restoreSaveImage(GUEST, name, { asNewGuest: CLONE }));
  await done(client.stop(CLONE));
  await done(client.undefineGuest(CLONE));
  {
    using held = await client.exportDisk(GUEST, name, { disk: 'disk0' });
    operations += held.info.uri === '' ? 0 : 1;
  }
  await done(client.pause(GUEST));
  await done(client.resume(GUEST));
  await done(client.createSaveImage(GUEST));
  await done(client.start(GUEST));
  await done(client.setPolicy(GUEST, { order: round }));
  await done(client.deleteSaveImage(GUEST, name));
  await Promise.all([client.overview(), client.metrics(), client.listOperations(), client.listAudit()]);
  await (await lab.witness(GUEST)).close();
}

async function done(operation: Promise<unknown>): Promise<void> {
  await operation;
  operations += 1;
}

/** A client that stays, as the page is. */
async function follow(signal: AbortSignal): Promise<void> {
  try {
    for await (const _ of client.events({}, { signal }));
  } catch (error) {
    if (!signal.aborted) throw error;
  }
}

async function look(): Promise<Sample> {
  const { rss, heapUsed, external } = await inspector.memory();
  const descriptors = (await readdir(`/proc/${lab.daemonPid}/fd`)).length;
  return { operations, rssMiB: rss / MIB, heapMiB: heapUsed / MIB, externalMiB: external / MIB, descriptors };
}

function report(): void {
  const warm = samples.slice(Math.floor(samples.length * WARM_UP));
  const [first, last] = [warm[0], warm.at(-1)];
  if (first === undefined || last === undefined) return say('too short to tell anything');
  const slope = (of: (sample: Sample) => number) =>
    (slopeOf(warm.map((each) => [each.operations, of(each)])) * 1000).toFixed(2);
  say(
    `after the warm-up, in ${last.operations - first.operations} operations, per 1000 of them: ` +
      `${slope((s) => s.rssMiB)} MiB resident, ${slope((s) => s.heapMiB)} MiB of heap, ${slope((s) => s.descriptors)} descriptors`,
  );
}

/** Of the straight line that is nearest to all. */
function slopeOf(points: readonly (readonly [x: number, y: number])[]): number {
  const mean = (of: (point: readonly [number, number]) => number) =>
    points.reduce((sum, point) => sum + of(point), 0) / points.length;
  const [x0, y0] = [mean(([x]) => x), mean(([, y]) => y)];
  const spread = mean(([x]) => (x - x0) ** 2);
  return spread === 0 ? 0 : mean(([x, y]) => (x - x0) * (y - y0)) / spread;
}

function minutes(): string {
  return ((performance.now() - began) / 60_000).toFixed(1);
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}
