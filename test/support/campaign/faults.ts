/** What can go wrong while something is done. Each puts the world right again: when it has struck, a daemon serves. */
import { setTimeout as delay } from 'node:timers/promises';
import { findPagerProcesses, findTpmProcesses } from '../../../src/qemu/process/process-scan.ts';
import type { Random } from '../random.ts';
import { killAll, type World } from './world.ts';

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
    async strike(world, deed, random) {
      const outcome = deed();
      await moment(random);
      await world.lab.endDaemon('SIGKILL');
      await world.serve();
      return outcome;
    },
  },
  {
    name: 'the daemon is told to end',
    sparesGuest: true,
    async strike(world, deed, random) {
      const outcome = deed();
      await moment(random);
      await world.lab.endDaemon('SIGTERM');
      await world.serve();
      return outcome;
    },
  },
  {
    name: '`kill -9` of QEMU',
    sparesGuest: false,
    async strike(world, deed, random) {
      const outcome = deed();
      await moment(random);
      await killAll(await world.lab.qemuProcesses());
      return outcome;
    },
  },
  {
    name: '`kill -9` of QEMU and the daemon',
    sparesGuest: false,
    async strike(world, deed, random) {
      const outcome = deed();
      await moment(random);
      await killAll(await world.lab.qemuProcesses());
      await world.lab.endDaemon('SIGKILL');
      await world.serve();
      return outcome;
    },
  },
  {
    name: '`kill -9` of the pager or swtpm',
    sparesGuest: false,
    async strike(world, deed, random) {
      const outcome = deed();
      await moment(random);
      for (const directory of await world.lab.runDirectories())
        await killAll([...(await findPagerProcesses(directory)), ...(await findTpmProcesses(directory))]);
      return outcome;
    },
  },
  {
    name: 'the daemon killed at a failpoint',
    sparesGuest: true,
    async strike(world, deed, random) {
      await world.lab.failAt(`#${oneOfFailpoints(random)}=kill`);
      const outcome = deed();
      await Promise.race([outcome, world.lab.daemonEnded()]);
      await noFailpoints(world);
      return outcome;
    },
  },
  {
    name: 'the daemon killed at a failpoint, and again while it recovers',
    sparesGuest: true,
    async strike(world, deed, random) {
      await world.lab.failAt(`#${oneOfFailpoints(random)}=kill`);
      const outcome = deed();
      await Promise.race([outcome, world.lab.daemonEnded()]);
      if (world.lab.hasNoDaemon) {
        await world.lab.failAt(`#${random.between(1, 4)}=kill`);
        await world.serve().catch(() => undefined); // it was killed before it served
      }
      await noFailpoints(world);
      return outcome;
    },
  },
  {
    name: 'QEMU killed at a failpoint',
    sparesGuest: false,
    async strike(world, deed, random) {
      await world.lab.failAt(`#${oneOfFailpoints(random)}=guest`);
      const outcome = await deed();
      await noFailpoints(world);
      return outcome;
    },
  },
  {
    name: 'a step that fails',
    sparesGuest: true,
    async strike(world, deed, random) {
      await world.lab.failAt(`#${oneOfFailpoints(random)}=error`);
      const outcome = await deed();
      await noFailpoints(world);
      return outcome;
    },
  },
  {
    name: 'QEMU stands still for a while',
    sparesGuest: true,
    async strike(world, deed, random) {
      const outcome = deed();
      await moment(random);
      const stopped = await killAll(await world.lab.qemuProcesses(), 'SIGSTOP');
      await delay(random.next() * 2000);
      await killAll(stopped, 'SIGCONT');
      return outcome;
    },
  },
  {
    name: 'the daemon stands still for a while',
    sparesGuest: true,
    async strike(world, deed, random) {
      const outcome = deed();
      await moment(random);
      await killAll([world.lab.daemonPid], 'SIGSTOP');
      await delay(random.next() * 2000);
      await killAll([world.lab.daemonPid], 'SIGCONT');
      return outcome;
    },
  },
  {
    name: 'a full disk, until the operation has failed',
    sparesGuest: false,
    mustBeDone: ['stop', 'delete'],
    isPossible: hasDisk,
    async strike(world, deed, random) {
      await world.disk?.fill(leftBytes(random));
      const outcome = await deed();
      await world.disk?.free();
      return outcome;
    },
  },
  {
    name: 'a full disk for a moment',
    sparesGuest: false,
    isPossible: hasDisk,
    async strike(world, deed, random) {
      const outcome = deed();
      await moment(random);
      await world.disk?.fill(leftBytes(random));
      await moment(random);
      await world.disk?.free();
      return outcome;
    },
  },
  {
    name: 'a full disk, and the daemon killed on it',
    sparesGuest: false,
    isPossible: hasDisk,
    async strike(world, deed, random) {
      await world.disk?.fill(leftBytes(random));
      const outcome = deed();
      await moment(random);
      await world.lab.endDaemon('SIGKILL');
      await world.serve().catch(() => undefined); // without space it may refuse to
      await world.disk?.free();
      await world.serve();
      return outcome;
    },
  },
  {
    name: 'EIO of all writes, then the host boots again',
    boots: true,
    sparesGuest: false,
    isPossible: hasDisk,
    async strike(world, deed, random) {
      const outcome = deed();
      await moment(random);
      await world.disk?.refuseWrites();
      await moment(random);
      await world.losePower();
      return outcome;
    },
  },
  {
    name: 'EIO of all reads, then the host boots again',
    boots: true,
    sparesGuest: false,
    isPossible: hasDisk,
    async strike(world, deed, random) {
      const outcome = deed();
      await moment(random);
      await world.disk?.refuseReads();
      await moment(random);
      await world.losePower();
      return outcome;
    },
  },
  {
    name: 'EIO of all reads, and the daemon killed on it',
    boots: true,
    sparesGuest: false,
    isPossible: hasDisk,
    async strike(world, deed, random) {
      await world.disk?.refuseReads();
      const outcome = deed();
      await moment(random);
      await world.lab.endDaemon('SIGKILL');
      await world.serve().catch(() => undefined); // without its catalog it must refuse to
      await world.losePower();
      return outcome;
    },
  },
  {
    name: 'a full disk, and a power cut on it',
    boots: true,
    sparesGuest: false,
    isPossible: hasDisk,
    async strike(world, deed, random) {
      await world.disk?.fill(leftBytes(random));
      const outcome = deed();
      await moment(random);
      await world.losePower();
      return outcome;
    },
  },
  {
    name: 'a slow disk, and the daemon killed on it',
    sparesGuest: true,
    isPossible: hasDisk,
    async strike(world, deed, random) {
      await world.disk?.pace(random.between(1, 8) * 1024 ** 2);
      const outcome = deed();
      await moment(random);
      await world.lab.endDaemon('SIGKILL');
      await world.serve();
      await world.disk?.pace(0);
      return outcome;
    },
  },
  {
    name: 'a slow disk, and a power cut on it',
    boots: true,
    sparesGuest: false,
    isPossible: hasDisk,
    async strike(world, deed, random) {
      await world.disk?.pace(random.between(1, 8) * 1024 ** 2);
      const outcome = deed();
      await moment(random);
      await world.losePower();
      return outcome;
    },
  },
  {
    name: 'a power cut',
    boots: true,
    sparesGuest: false,
    async strike(world, deed, random) {
      const outcome = deed();
      await moment(random);
      await world.losePower();
      return outcome;
    },
  },
  {
    name: 'a slow disk',
    sparesGuest: true,
    isPossible: hasDisk,
    async strike(world, deed, random) {
      await world.disk?.pace(random.between(1, 8) * 1024 ** 2);
      const outcome = await deed();
      await world.disk?.pace(0);
      return outcome;
    },
  },
  {
    name: 'the clock jumps',
    sparesGuest: true,
    isPossible: ({ hasOwnClock }) => hasOwnClock,
    async strike(world, deed, random) {
      const outcome = deed();
      await moment(random);
      await world.setClock(hours(random));
      return outcome;
    },
  },
  {
    name: 'the clock jumps, and the daemon is killed',
    sparesGuest: true,
    isPossible: ({ hasOwnClock }) => hasOwnClock,
    async strike(world, deed, random) {
      await world.setClock(hours(random));
      const outcome = deed();
      await moment(random);
      await world.lab.endDaemon('SIGKILL');
      await world.setClock(hours(random));
      await world.serve();
      return outcome;
    },
  },
];

/** Up to two months from the right time. */
function hours(random: Random): number {
  return random.between(-1500, 1500);
}

/** Sometimes nothing at all, sometimes enough for the catalog, but not for an image. */
function leftBytes(random: Random): number {
  return random.chance(0.3) ? 0 : Math.floor(random.next() * 4 * 1024 ** 2);
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
  if (!world.lab.hasNoDaemon) await world.lab.client.hostStatus().catch(() => undefined);
  await world.serve();
}
