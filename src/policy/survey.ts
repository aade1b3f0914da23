/** Before the guests are ended: which ones run, what each one's policy wants, and what saving it would take. */
import { statfs } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import type { Outcome, SaveAllPlan } from '../api/schemas.ts';
import { listGuests, type GuestRecord } from '../catalog/guests.ts';
import { messageOf } from '../errors.ts';
import { storedDefinition } from '../guests/definition.ts';
import { policyOf } from '../guests/policy.ts';
import { residentGuestBytes } from '../guests/host-memory.ts';
import type { Host } from '../guests/host.ts';
import { saveProcedure } from '../images/save.ts';
import type { QemuProcess } from '../qemu/process/process.ts';
import { waitFor } from '../qemu/wait.ts';
import { planEnds, type Candidate, type Means, type PlannedEnd } from './budget.ts';
import { savesUntilMs } from './reserve.ts';
import { writeSpeed } from './write-speed.ts';

/** A guest that is left as it is, and why. */
export interface LeftAlone {
  readonly guest: string;
  readonly isRunning: boolean;
  readonly wanted: 'save' | 'shutdown' | 'stop' | 'none';
  readonly outcome: Outcome;
}

export interface Survey {
  readonly candidates: readonly Candidate[];
  readonly leftAlone: readonly LeftAlone[];
  readonly means: Means;
  /** where the speed is from */
  readonly basis: string;
}

/** What is left for surprises: the speed reckoned with is this part of what was reached. */
const CAUTION = 0.8;
const MOST_PARALLEL = 4;
/** A QEMU that doesn't answer must not hold up the others; one that is only slow is to be saved. */
const [LEAST_PATIENCE_MS, MOST_PATIENCE_MS, PATIENT_PART] = [3_000, 10_000, 1 / 8];

/** @param budgetMs Infinity: as long as it takes */
export async function survey(host: Host, budgetMs: number): Promise<Survey> {
  const candidates: Candidate[] = [];
  const leftAlone: LeftAlone[] = [];
  const patienceMs = Math.min(MOST_PATIENCE_MS, Math.max(LEAST_PATIENCE_MS, budgetMs * PATIENT_PART));
  const looks = (await listGuests(host.catalog)).map((guest) => look(host, guest, patienceMs));
  for (const found of await Promise.all(looks)) {
    if ('outcome' in found) leftAlone.push(found);
    else candidates.push(found);
  }
  const { bytesPerSecond, basis } = await writeSpeed(host.catalog);
  const means: Means = {
    bytesPerSecond: bytesPerSecond * CAUTION,
    parallel: Math.min(MOST_PARALLEL, availableParallelism()),
    timeMs: savesUntilMs(budgetMs),
    freeBytes: await freeBytes(host),
    underWay: [],
  };
  return { candidates, leftAlone, means, basis };
}

/** What can be written to where the images are. */
export async function freeBytes(host: Host): Promise<number> {
  const { bavail, bsize } = await statfs(host.paths.data);
  return bavail * bsize;
}

async function look(host: Host, guest: GuestRecord, patienceMs: number): Promise<Candidate | LeftAlone> {
  const { onShutdown: wanted, order, timeLimitSeconds } = policyOf(host, guest);
  const leave = (isRunning: boolean, outcome: Outcome['outcome'], message: string): LeftAlone => ({
    guest: guest.uuid,
    isRunning,
    wanted,
    outcome: { name: guest.name, outcome, message, wanted },
  });
  if (guest.instance === null) return leave(false, 'skipped', 'it does not run');
  if (wanted === 'none') return leave(true, 'skipped', 'left running, as its policy says');
  const process = host.supervisor.find(guest.uuid);
  if (process === undefined)
    return leave(true, 'failed', `left alone: ${guest.stateReason ?? 'its QEMU process does not answer'}`);
  const saving =
    wanted === 'save' ? await lookAtSaving(host, guest, process, patienceMs) : { bytes: 0, obstacle: null };
  return {
    guest: guest.uuid,
    name: guest.name,
    wanted,
    order,
    timeLimitMs: timeLimitSeconds * 1000,
    ...saving,
  };
}

/** What a save's own plan says, which touches nothing. */
async function lookAtSaving(
  host: Host,
  { uuid, name, definition }: GuestRecord,
  process: QemuProcess,
  patienceMs: number,
): Promise<Pick<Candidate, 'bytes' | 'obstacle'>> {
  const ask = async () => {
    const bytes = await residentGuestBytes(process, storedDefinition({ definition }));
    await saveProcedure(host).plan({}, { guest: uuid, guestName: name, image: null });
    return { bytes, obstacle: null };
  };
  try {
    return await waitFor(`looking at guest ${name}`, ask(), { timeoutMs: patienceMs });
  } catch (error) {
    return { bytes: 0, obstacle: messageOf(error) };
  }
}

/** What `save-all` would do now, without doing it. */
export async function describePlan(host: Host, budgetSeconds: number | undefined): Promise<SaveAllPlan> {
  const { candidates, leftAlone, means, basis } = await survey(host, (budgetSeconds ?? Infinity) * 1000);
  return {
    budgetSeconds: budgetSeconds ?? null,
    bytesPerSecond: Math.round(means.bytesPerSecond),
    basis,
    parallel: means.parallel,
    guests: [
      ...planEnds(candidates, means).map(describeEnd),
      ...leftAlone.map(({ wanted, outcome }) => ({
        guest: outcome.name,
        wanted,
        action: 'none' as const,
        bytes: 0,
        endsAfterSeconds: null,
        why: outcome.message,
      })),
    ],
  };
}

function describeEnd({ candidate, action, endMs, why }: PlannedEnd): SaveAllPlan['guests'][number] {
  return {
    guest: candidate.name,
    wanted: candidate.wanted,
    action,
    bytes: action === 'save' ? candidate.bytes : 0,
    endsAfterSeconds: endMs === null ? null : Math.round(endMs / 100) / 10,
    why,
  };
}
