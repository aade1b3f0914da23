/**
 * `npm run campaign -- --seed N --histories M`: random histories with faults, each of a seed of its own from N on. What breaks a
 * rule is told with its seed, and the command that lets that very history happen again.
 */
import { writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { BrokenRule, live, told, type Step } from '../support/campaign/history.ts';
import { Tally } from '../support/campaign/tally.ts';
import { GROUNDS, kindsNamed, type GroundKind } from '../support/grounds.ts';

const HELP = `npm run campaign -- [--seed N] [--histories M] [--steps S] [--ground KIND] [--verbose]

  --seed N       the first history's; those after it count on (1)
  --histories M  how many (20)
  --steps S      operations in each (12)
  --ground KIND  what the guest's disks are on; without it they are in the home, with which they lose their power:
                 ${GROUNDS.map(({ name }) => name).join(', ')}
  --verbose      tells each step
`;

const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: '1' },
    histories: { type: 'string', default: '20' },
    steps: { type: 'string', default: '12' },
    ground: { type: 'string' },
    verbose: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
});
if (values.help) process.stdout.write(HELP);
else await campaign();

async function campaign(): Promise<void> {
  const [first, count, steps] = [values.seed, values.histories, values.steps].map(Number);
  if (first === undefined || count === undefined || steps === undefined) return;
  const ground = values.ground === undefined ? undefined : groundNamed(values.ground);
  const stop = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    process.once(signal, () => stop.abort(new Error(`ended by ${signal}`)));
  const tally = new Tally();
  const began = performance.now();
  const onStep = (step: Step) => {
    tally.add(step);
    if (values.verbose) process.stdout.write(`  ${told(step)}\n`);
  };
  let lived = 0;
  let broken = 0;
  for (let seed = first; seed < first + count && !stop.signal.aborted; seed += 1) {
    if (values.verbose) process.stdout.write(`seed ${seed}\n`);
    try {
      await live({ seed, steps, ground, signal: stop.signal, onStep });
    } catch (error) {
      if (stop.signal.aborted) break;
      broken += 1;
      await tell(seed, error);
    }
    lived += 1;
    if (process.stderr.isTTY) process.stderr.write(`\r${lived}/${count}, ${broken} broken `);
  }
  const minutes = ((performance.now() - began) / 60_000).toFixed(1);
  const place = ground === undefined ? '' : `, ${ground.name}`;
  process.stdout.write(
    `${tally.table()}\n\n${lived} histories of ${steps} steps, seeds ${first}–${first + lived - 1}${place}: ` +
      `${broken} broke a rule; ${minutes} minutes\n`,
  );
  if (broken > 0) process.exitCode = 1;
}

async function tell(seed: number, error: unknown): Promise<void> {
  const log = join(tmpdir(), `stasis-campaign-${seed}.log`);
  if (error instanceof BrokenRule) await writeFile(log, error.daemonLog);
  const again = ['--seed', seed, '--histories', 1, '--steps', values.steps];
  if (values.ground !== undefined) again.push('--ground', `'${values.ground}'`);
  process.stdout.write(
    `seed ${seed}: ${described(error)}\n  the daemon's log: ${log}\n  again: npm run campaign -- ${again.join(' ')}\n\n`,
  );
}

function described(error: unknown): string {
  if (error instanceof SuppressedError)
    return `${described(error.error)}\n  after ${described(error.suppressed)}`;
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}

function groundNamed(name: string): GroundKind | undefined {
  const [ground] = kindsNamed(name);
  if (typeof ground?.skip === 'string') throw new Error(`${name}: ${ground.skip}`);
  return ground;
}
