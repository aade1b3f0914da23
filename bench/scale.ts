/** How many guests and images cost: memory of the idle daemon, and commands as whole processes. */
import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { Lab } from '../test/support/lab.ts';
import { crowd } from './crowd.ts';

const run = promisify(execFile);
const STASIS = join(import.meta.dirname, '../bin/stasis');
const RUNS = 10;

for (const images of [1000, 10_000]) await measure(20, images);

async function measure(guests: number, images: number): Promise<void> {
  const home = await mkdtemp(join(tmpdir(), 'stasis-scale-'));
  try {
    await crowd(home, guests, images);
    await using lab = await Lab.open(home);
    const command = (...args: string[]) =>
      run(STASIS, args, { env: { ...process.env, STASIS_HOME: home }, maxBuffer: 256 * 1024 ** 2 });
    const { stdout } = await command('images', '--json');
    const listed: unknown = JSON.parse(stdout);
    if (!Array.isArray(listed) || listed.length !== images) throw new Error('not all images were listed');
    const residentMiB = (await lab.client.hostStatus()).residentBytes / 1024 ** 2;
    const rows = [
      ['stasis guests, whole process, ms', await median(() => command('guests'))],
      ['stasis images --json, whole process, ms', await median(() => command('images', '--json'))],
      ['GET /v1/images, ms', await median(() => lab.client.listSaveImages())],
      ['GET /v1/host, ms', await median(() => lab.client.hostStatus())],
      ['GET /metrics, ms', await median(() => lab.client.metrics())],
    ] as const;
    process.stdout.write(
      `${guests} guests, ${images} images: daemon ${residentMiB.toFixed(0)} MiB resident after listing them\n`,
    );
    for (const [what, figure] of rows) process.stdout.write(`  ${what}: ${figure}\n`);
  } finally {
    await rm(home, { recursive: true, force: true });
  }
}

/** Median, with minimum and maximum. */
async function median(work: () => Promise<unknown>): Promise<string> {
  const values: number[] = [];
  for (let count = 0; count < RUNS; count += 1) {
    const begin = performance.now();
    await work();
    values.push(performance.now() - begin);
  }
  values.sort((a, b) => a - b);
  return `${(values[RUNS / 2] ?? 0).toFixed(0)} (${(values[0] ?? 0).toFixed(0)}–${(values.at(-1) ?? 0).toFixed(0)})`;
}
