/** One guest when the host boots: restored or started as its policy says, within its time limit. */
import { DEFAULT_IMAGE } from '../api/constants.ts';
import type { Outcome } from '../api/schemas.ts';
import type { Catalog } from '../catalog/database.ts';
import { getGuestByUuid, type GuestRecord } from '../catalog/guests.ts';
import { findImage } from '../catalog/images.ts';
import { headsOf, pinsOf } from '../catalog/layers.ts';
import { StasisError, messageOf } from '../errors.ts';
import { bootProcedure } from '../guests/boot.ts';
import { policyOf } from '../guests/policy.ts';
import type { Host } from '../guests/host.ts';
import { restoreProcedure } from '../images/restore.ts';
import type { OperationEngine } from '../operations/engine.ts';
import { chooseForBoot, type BootChoice, type Circumstances } from './boot-choice.ts';
import { runOnGuest, type Limits } from './guest-work.ts';
import { timeoutWith } from './ladder.ts';

export interface Start {
  readonly host: Host;
  readonly engine: OperationEngine;
  /** the whole undertaking is called off */
  readonly signal: AbortSignal;
  readonly onDemand: boolean;
}

/** @returns how it went, and whether the guest was started. @throws when it is called off */
export async function startGuest(
  start: Start,
  uuid: string,
): Promise<{ readonly outcome: Outcome; readonly isStarted: boolean }> {
  const startedMs = performance.now();
  const guest = await getGuestByUuid(start.host.catalog, uuid);
  const { onBoot: wanted } = policyOf(start.host, guest);
  const told = (outcome: Outcome['outcome'], message: string): Outcome => {
    const tookMs = Math.round(performance.now() - startedMs);
    return { name: guest.name, outcome, message, wanted, tookMs };
  };
  const image = await standingOfImage(start.host.catalog, uuid);
  const isRunning = guest.instance !== null;
  const choice = chooseForBoot({ onBoot: wanted, isRunning, image, onDemand: start.onDemand });
  if (choice.action === 'nothing') return { outcome: told('skipped', choice.why), isStarted: false };
  try {
    await carryOut(start, guest, choice.action);
    const why = choice.why === 'its policy' ? '' : `: ${choice.why}`;
    return { outcome: told('done', PAST[choice.action] + why), isStarted: true };
  } catch (error) {
    start.signal.throwIfAborted();
    if (choice.action === 'start') return { outcome: told('failed', messageOf(error)), isStarted: false };
    const { message, isStarted } = await fallBack(start, guest);
    return { outcome: told('failed', `not restored: ${messageOf(error)}; ${message}`), isStarted };
  }
}

const PAST = { restore: 'restored', start: 'started' } as const;

/** The default image is kept: whether it is restored later, or never again, is for a person to say. */
async function fallBack(
  start: Start,
  guest: GuestRecord,
): Promise<{ readonly message: string; readonly isStarted: boolean }> {
  const { fallback } = policyOf(start.host, guest);
  if (fallback === 'none') return { message: 'its image is kept, and it stays stopped', isStarted: false };
  try {
    await carryOut(start, guest, 'start');
    return { message: 'its image is kept, and it was started from its disks', isStarted: true };
  } catch (error) {
    start.signal.throwIfAborted();
    return {
      message: `its image is kept, and it could not be started either: ${messageOf(error)}`,
      isStarted: false,
    };
  }
}

async function carryOut(
  { host, engine, signal }: Start,
  guest: GuestRecord,
  action: Exclude<BootChoice['action'], 'nothing'>,
): Promise<void> {
  const { timeLimitSeconds } = policyOf(host, guest);
  const timeout = timeoutWith(
    timeLimitSeconds * 1000,
    new StasisError('timeout', `it did not run within its time limit of ${timeLimitSeconds} s`),
  );
  const limits: Limits = { signal: AbortSignal.any([signal, timeout]) };
  const subject = { guest: guest.uuid, guestName: guest.name, image: null };
  if (action === 'start')
    return runOnGuest(engine, bootProcedure(host), { kind: 'start', subject, args: {} }, limits);
  const args = { delete: 'unless-protected', ifStopped: true } as const;
  return runOnGuest(engine, restoreProcedure(host), { kind: 'start', subject, args }, limits);
}

/** The default image is what the guest is now as long as nothing was written since: its layers are the heads. */
export async function standingOfImage(catalog: Catalog, uuid: string): Promise<Circumstances['image']> {
  const image = await findImage(catalog, uuid, DEFAULT_IMAGE);
  if (image === undefined) return 'none';
  const heads = new Map((await headsOf(catalog, uuid)).map(({ disk, layer }) => [disk, layer.id]));
  const pins = await pinsOf(catalog, image.id);
  return pins.every(({ disk, layer }) => heads.get(disk) === layer.id) ? 'present' : 'past';
}
