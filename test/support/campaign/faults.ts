/** What can go wrong while something is done. Each puts the world right again: when it has struck, a daemon serves. */
import { setTimeout as delay } from 'node:timers/promises';
import { findPagerProcesses, findTpmProcesses } from '../../../src/qemu/process/process-scan.ts';
import type { Random } from '../random.ts';
import { killAll } from '../kill-all.ts';
import type { World } from './world.ts';

/** Begins what is to be done. Resolves with how that went; rejects with what is wrong with whoever tries. */
export type Deed = () => Promise<string>;

export interface Fault {
  readonly name: string;
  /** whether a guest that runs must run on, with all that it holds */
  readonly sparesGuest: boolean;
  /** the host boots after it, with what its policies do */
  readonly boots?: boolean;
  /** operations that must be possible all the same */
  readonly mustBeDone?: readonly string[];
  /** what it takes of the world */
  readonly isPossible?: (world: World) => boolean;
  strike(world: World, deed: Deed, random: Random): Promise<string>;
}

const LONGEST_DELAY_MS = 600;
/** A short operation has so many, a long one about so many. */
const [FEW_FAILPOINTS, MANY_FAILPOINTS] = [5, 20];

const hasDisk = ({ disk }: World) => disk !== undefined;

export const NO_FAULT: Fault = { name: 'none', sparesGuest: true, strike: (_world, deed) => deed() };

export const FAULTS: readonly Fault[] = [
  {
    name: '`kill -9` of the daemon',
    sparesGuest: true,
    strike: atSomeMoment(({ lab }) => lab.endDaemon('SIGKILL')),
  },
  {
    name: 'the daemon is told to end',
    sparesGuest: true,
    strike: atSomeMoment(({ lab }) => lab.endDaemon('SIGTERM')),
  },
  {
    name: '`kill -9` of QEMU',
    sparesGuest: false,
    strike: atSomeMoment(killGuests),
  },
  {
    name: '`kill -9` of QEMU and the daemon',
    sparesGuest: false,
    strike: atSomeMoment(async (world) => {
      await killGuests(world);
      await world.lab.endDaemon('SIGKILL');
    }),
  },
  {
    name: '`kill -9` of the pager or swtpm',
    sparesGuest: false,
    strike: atSomeMoment(async ({ lab }) => {
      for (const directory of await lab.runDirectories())
        await killAll([...(await findPagerProcesses(directory)), ...(await findTpmProcesses(directory))]);
    }),
  },
  {
    name: 'the daemon killed at a failpoint',
    sparesGuest: true,
    strike: atFailpoint('kill', () => Promise.resolve()),
  },
  {
    name: 'the daemon killed at a failpoint, and again while it recovers',
    sparesGuest: true,
    strike: atFailpoint('kill', async (world, random) => {
      if (!world.lab.hasNoDaemon) return;
      await world.lab.failAt(`#${random.between(1, 4)}=kill`);
      await world.serve().catch(() => undefined); // it was killed before it served
    }),
  },
  {
    name: 'QEMU killed at a failpoint',
    sparesGuest: false,
    strike: atFailpoint('guest', (_world, _random, outcome) => outcome),
  },
  {
    name: 'a step that fails',
    sparesGuest: true,
    strike: atFailpoint('error', (_world, _random, outcome) => outcome),
  },
  {
    name: 'QEMU stands still for a while',
    sparesGuest: true,
    strike: atSomeMoment(async ({ lab }, random) => standStill(await lab.qemuProcesses(), random)),
  },
  {
    name: 'the daemon stands still for a while',
    sparesGuest: true,
    strike: atSomeMoment(({ lab }, random) => standStill([lab.daemonPid], random)),
  },
  {
    name: 'a full disk, until the operation has failed',
    sparesGuest: false,
    mustBeDone: ['stop', 'delete'],
    isPossible: hasDisk,
    strike: throughout(fillDisk, ({ disk }) => disk?.free()),
  },
  {
    name: 'a full disk for a moment',
    sparesGuest: false,
    isPossible: hasDisk,
    strike: atSomeMoment(async (world, random) => {
      await fillDisk(world, random);
      await moment(random);
      await world.disk?.free();
    }),
  },
  {
    name: 'a full disk, and the daemon killed on it',
    sparesGuest: false,
    isPossible: hasDisk,
    strike: atSomeMoment(async (world) => {
      await world.lab.endDaemon('SIGKILL');
      await world.serve().catch(() => undefined); // without space it may refuse to
      await world.disk?.free();
    }, fillDisk),
  },
  {
    name: 'EIO of all writes, then the host boots again',
    boots: true,
    sparesGuest: false,
    isPossible: hasDisk,
    strike: atSomeMoment(async (world, random) => {
      await world.disk?.refuseWrites();
      await moment(random);
      await world.losePower();
    }),
  },
  {
    name: 'EIO of all reads, then the host boots again',
    boots: true,
    sparesGuest: false,
    isPossible: hasDisk,
    strike: atSomeMoment(async (world, random) => {
      await world.disk?.refuseReads();
      await moment(random);
      await world.losePower();
    }),
  },
  {
    name: 'EIO of all reads, and the daemon killed on it',
    boots: true,
    sparesGuest: false,
    isPossible: hasDisk,
    strike: atSomeMoment(
      async (world) => {
        await world.lab.endDaemon('SIGKILL');
        await world.serve().catch(() => undefined); // without its catalog it must refuse to
        await world.losePower();
      },
      ({ disk }) => disk?.refuseReads(),
    ),
  },
  {
    name: 'a full disk, and a power cut on it',
    boots: true,
    sparesGuest: false,
    isPossible: hasDisk,
    strike: atSomeMoment((world) => world.losePower(), fillDisk),
  },
  {
    name: 'a slow disk, and the daemon killed on it',
    sparesGuest: true,
    isPossible: hasDisk,
    strike: atSomeMoment(async (world) => {
      await world.lab.endDaemon('SIGKILL');
      await world.serve();
      await world.disk?.pace(0);
    }, slowDisk),
  },
  {
    name: 'a slow disk, and a power cut on it',
    boots: true,
    sparesGuest: false,
    isPossible: hasDisk,
    strike: atSomeMoment((world) => world.losePower(), slowDisk),
  },
  {
    name: 'a power cut',
    boots: true,
    sparesGuest: false,
    strike: atSomeMoment((world) => world.losePower()),
  },
  {
    name: 'a slow disk',
    sparesGuest: true,
    isPossible: hasDisk,
    strike: throughout(slowDisk, ({ disk }) => disk?.pace(0)),
  },
  {
    name: 'the clock jumps',
    sparesGuest: true,
    isPossible: ({ hasOwnClock }) => hasOwnClock,
    strike: atSomeMoment(setClock),
  },
  {
    name: 'the clock jumps, and the daemon is killed',
    sparesGuest: true,
    isPossible: ({ hasOwnClock }) => hasOwnClock,
    strike: atSomeMoment(async (world, random) => {
      await world.lab.endDaemon('SIGKILL');
      await setClock(world, random);
    }, setClock),
  },
];

type Blow = (world: World, random: Random) => Promise<unknown> | undefined;

/** @param before what is so already when it begins */
function atSomeMoment(blow: Blow, before?: Blow): Fault['strike'] {
  return async (world, deed, random) => {
    await before?.(world, random);
    const outcome = deed();
    await moment(random);
    await blow(world, random);
    await world.serve();
    return outcome;
  };
}

/** It is so from before the beginning until after the end. */
function throughout(before: Blow, after: Blow): Fault['strike'] {
  return async (world, deed, random) => {
    await before(world, random);
    const outcome = await deed();
    await after(world, random);
    return outcome;
  };
}

/** @param then when the daemon has ended, or all was done without one being reached; with `outcome` it can be waited for */
function atFailpoint(
  action: 'kill' | 'guest' | 'error',
  then: (world: World, random: Random, outcome: Promise<string>) => Promise<unknown>,
): Fault['strike'] {
  return async (world, deed, random) => {
    await world.lab.failAt(`#${oneOfFailpoints(random)}=${action}`);
    const outcome = deed();
    await Promise.race([outcome, world.lab.daemonEnded()]);
    await then(world, random, outcome);
    await noFailpoints(world);
    return outcome;
  };
}

async function killGuests({ lab }: World): Promise<void> {
  await killAll(await lab.qemuProcesses());
}

async function standStill(pids: readonly number[], random: Random): Promise<void> {
  const stopped = await killAll(pids, 'SIGSTOP');
  await delay(random.next() * 2000);
  await killAll(stopped, 'SIGCONT');
}

/** Sometimes nothing at all is left, sometimes enough for the catalog, but not for an image. */
async function fillDisk({ disk }: World, random: Random): Promise<void> {
  await disk?.fill(random.chance(0.3) ? 0 : Math.floor(random.next() * 4 * 1024 ** 2));
}

async function slowDisk({ disk }: World, random: Random): Promise<void> {
  await disk?.pace(random.between(1, 8) * 1024 ** 2);
}

/** Up to two months from the right time. */
async function setClock(world: World, random: Random): Promise<void> {
  await world.setClock(random.between(-1500, 1500));
}

/** One that isn't reached doesn't strike. */
function oneOfFailpoints(random: Random): number {
  return random.between(1, random.chance(0.5) ? FEW_FAILPOINTS : MANY_FAILPOINTS);
}

async function moment(random: Random): Promise<void> {
  await delay(random.next() * LONGEST_DELAY_MS);
}

/** The answer to a request proves that who was about to look at the failpoints has. */
async function noFailpoints(world: World): Promise<void> {
  await world.lab.failAt();
  if (!world.lab.hasNoDaemon) {
    const { client } = world.lab;
    await client.hostStatus().catch(() => world.lab.daemonEnded()); // it had already been struck
  }
  await world.serve();
}
