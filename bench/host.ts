/**
 * A host with many guests: how long it takes to save all that run and to bring them back after a boot, what the daemon occupies
 * meanwhile, and whether each guest holds what it held. `npm run bench:host -- [--defined 200] [--running 50]`
 */
import assert from 'node:assert/strict';
import { parseArgs } from 'node:util';
import { contentOf, changeContent, type Content } from '../test/support/rules.ts';
import { HostLab } from '../test/support/host-lab.ts';

const AREA_MIB = 1;
const LOOK_EVERY_MS = 100;

const { values } = parseArgs({
  options: {
    defined: { type: 'string', default: '200' },
    running: { type: 'string', default: '50' },
  },
});
const [defined, running] = [Number(values.defined), Number(values.running)];
const names = Array.from({ length: defined }, (_, number) => `guest${number}`);
const awake = names.slice(0, running);

await using host = await HostLab.create();
const { lab } = host;
const { client } = lab;
say(`${defined} guests, of which ${running} run`);

await timed('define all', async () => {
  for (const name of names) {
    const policy = { onBoot: awake.includes(name) ? 'restore' : 'none', onShutdown: 'save' };
    await lab.define(name, { system: 'bare', disks: 1, extra: { policy } });
  }
});
await timed('start those that run, one after the other', async () => {
  for (const name of awake) await client.start(name);
});
const held = new Map<string, Content>();
for (const [number, name] of awake.entries()) held.set(name, await quietContent(name, number));
await memory('with them running');
await timed('list all guests', () => client.listGuests());
await timed('host save-all', () => client.saveAll());
assert.deepEqual(
  (await client.listSaveImages()).map(({ guest, state }) => `${guest} ${state}`).toSorted(),
  awake.map((name) => `${name} ready`).toSorted(),
  'each that ran has an image, and no other',
);
await memory('all saved');

await host.goDown();
await timed('boot of the host: from the start of the daemon until all are restored', async () => {
  await host.boot();
  const outcomes = await host.booted();
  const failed = Object.values(outcomes).filter(({ outcome }) => outcome === 'failed');
  assert.deepEqual(failed, []);
});
await memory('all restored');
for (const name of awake) assert.deepEqual(await contentOf(lab, name), held.get(name), name);
const states = (await client.listGuests()).map(({ name, state }) => `${name} ${state}`);
assert.deepEqual(
  states.toSorted(),
  names.map((name) => `${name} ${awake.includes(name) ? 'running' : 'stopped'}`).toSorted(),
);
say('nothing lost: memory and disk of each hold what they held, and no other guest runs');

/** Known content of a guest that then does nothing by itself: this is about the host, not about load. */
async function quietContent(name: string, seed: number): Promise<Content> {
  {
    await using witness = await lab.witness(name);
    await witness.fill(seed, AREA_MIB);
    await witness.hammer('off');
  }
  return changeContent(lab, name, seed);
}

/** Also tells the most that the daemon occupied meanwhile. */
async function timed(what: string, work: () => Promise<unknown>): Promise<void> {
  let most = 0;
  const look = setInterval(() => {
    client.hostStatus().then(
      ({ residentBytes }) => (most = Math.max(most, residentBytes)),
      () => undefined, // no daemon just now
    );
  }, LOOK_EVERY_MS);
  const began = performance.now();
  try {
    await work();
  } finally {
    clearInterval(look);
  }
  const seconds = (performance.now() - began) / 1000;
  const peak = most === 0 ? '' : `, daemon ${mib(most)} MiB at the most`;
  say(`  ${what}: ${seconds.toFixed(seconds < 1 ? 3 : 1)} s${peak}`);
}

async function memory(when: string): Promise<void> {
  say(`  daemon, ${when}: ${mib((await client.hostStatus()).residentBytes)} MiB resident`);
}

function mib(bytes: number): string {
  return (bytes / 1024 ** 2).toFixed(0);
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}
