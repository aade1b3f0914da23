/**
 * `npm run campaign -- --seed N --histories M`: random histories with faults, each of a seed of its own from N on. What breaks a
 * rule is told with its seed, and the command that lets that very history happen again.
 */
import { writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { liveAll, type HistoryEnd, type HistoryTask } from '../support/campaign/crew.ts';
import { told } from '../support/campaign/history.ts';
import { Tally } from '../support/campaign/tally.ts';
import { GROUNDS, kindsNamed } from '../support/grounds.ts';

const HELP = `npm run campaign -- [--seed N] [--histories M] [--steps S] [--jobs J] [--ground KIND] [--verbose]

  --seed N       the first history's; those after it count on (1)
  --histories M  how many (20)
  --steps S      operations in each (12)
  --jobs J       so many histories at once (1); what happens in each is the same
  --ground KIND  what the guest's disks are on; without it they are in the home, with which they lose their power:
                 ${GROUNDS.map(({ name }) => name).join(', ')}
  --verbose      tells each step

It tells how far it is each half minute, and what was done when it has ended, also by Ctrl-C or SIGTERM.
`;
const PROGRESS_MS = 30_000;

const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: '1' },
    histories: { type: 'string', default: '20' },
    steps: { type: 'string', default: '12' },
    jobs: { type: 'string', default: '1' },
    ground: { type: 'string' },
    verbose: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
});
if (values.help) process.stdout.write(HELP);
else await campaign();

async function campaign(): Promise<void> {
  const [first, count, steps, jobs] = [values.seed, values.histories, values.steps, values.jobs].map(Number);
  if (first === undefined || count === undefined || steps === undefined) return;
  const { ground } = values;
  refuseGround(ground);
  const stop = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    process.on(signal, () => stop.abort(new Error(`ended by ${signal}`))); // timeout(1) sends it twice

  const tally = new Tally();
  const began = performance.now();
  const lived: number[] = [];
  const broken: number[] = [];
  const progress = () =>
    process.stderr.write(
      `${new Date().toISOString()} ${lived.length} of ${count} histories, ${tally.steps} steps, ${broken.length} broken\n`,
    );
  const timer = setInterval(progress, PROGRESS_MS);
  await liveAll(
    Array.from({ length: count }, (_, index) => ({ seed: first + index, steps, ground })),
    {
      ...{ jobs: jobs ?? 1, signal: stop.signal },
      onStep: ({ seed }, step) => {
        tally.add(step);
        if (values.verbose) process.stdout.write(`${seed} ${told(step)}\n`);
      },
      onEnd: async (task, end) => {
        if (end.how === 'stopped') return;
        lived.push(task.seed);
        if (end.how === 'lived') return tally.addFailpoints(end.struck);
        broken.push(task.seed);
        await tell(task, end);
      },
    },
  );
  clearInterval(timer);
  const minutes = ((performance.now() - began) / 60_000).toFixed(1);
  const place = ground === undefined ? '' : `, ${ground}`;
  process.stdout.write(
    `${tally.table()}\n\n${tally.failpoints()}\n\n${lived.length} histories of ${steps} steps, ${tally.steps} in all, seeds ` +
      `${first}–${Math.max(first, ...lived)}${place}: ` +
      `${broken.length} broke a rule${broken.length === 0 ? '' : ` (${broken.join(', ')})`}; ${minutes} minutes\n`,
  );
  if (broken.length > 0) process.exitCode = 1;
}

async function tell(
  { seed, steps, ground }: HistoryTask,
  end: HistoryEnd & { how: 'broken' },
): Promise<void> {
  const log = join(tmpdir(), `stasis-campaign-${seed}.log`);
  await writeFile(log, end.daemonLog);
  const again = ['--seed', seed, '--histories', 1, '--steps', steps];
  if (ground !== undefined) again.push('--ground', `'${ground}'`);
  process.stdout.write(
    `seed ${seed}: ${end.what}\n  the daemon's log: ${log}\n  again: npm run campaign -- ${again.join(' ')}\n\n`,
  );
}

function refuseGround(name: string | undefined): void {
  const [ground] = name === undefined ? [] : kindsNamed(name);
  if (typeof ground?.skip === 'string') throw new Error(`${name}: ${ground.skip}`);
}
