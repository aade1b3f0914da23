/** One run of a schedule: room is made, the guest is saved live, and what its rules don't keep is removed. */
import type { Host } from '../guests/host.ts';
import { getGuestByUuid, hasGuest, listGuests, type GuestRecord } from '../catalog/guests.ts';
import { findImage } from '../catalog/images.ts';
import { listRetention } from '../catalog/retention.ts';
import { findSchedule, settleRun, updateRun, type RunRecord } from '../catalog/schedules.ts';
import { StasisError } from '../errors.ts';
import { storedDefinition } from '../guests/definition.ts';
import { residentGuestBytes } from '../guests/host-memory.ts';
import { imageName, storedSpec, type ScheduleSpec } from '../guests/schedules.ts';
import { saveProcedure } from '../images/save.ts';
import type { OperationEngine } from '../operations/engine.ts';
import type { Subject } from '../operations/procedure.ts';
import type { QemuProcess } from '../qemu/process/process.ts';
import { submitWhenFree } from './guest-work.ts';
import { timeoutWith } from './ladder.ts';
import { tellRun } from './run-events.ts';
import type { ScheduledWork } from './scheduler.ts';
import { isToGo, outlook, overQuota, pruneProcedure } from './prune.ts';

interface Undertaking {
  readonly host: Host;
  readonly engine: OperationEngine;
  /** the daemon ends: what is not done is done by the next one */
  readonly signal: AbortSignal;
}

/** So long a run waits for whatever else is done to its guest. */
const PATIENCE_MS = 10 * 60_000;
/** A save that ends the daemon each time is not tried for ever. */
const MOST_ATTEMPTS = 3;

export function scheduledSaves(host: Host, engine: OperationEngine): ScheduledWork {
  return {
    carryOut: (run, signal) => carryOut({ host, engine, signal }, run),
    takeUp: (signal) => pruneAll({ host, engine, signal }),
  };
}

/** Never rejects: what becomes of it is recorded and told. */
async function carryOut(undertaking: Undertaking, run: RunRecord): Promise<void> {
  const { host, signal } = undertaking;
  try {
    if (!(await hasGuest(host.catalog, run.guest))) return;
    const guest = await getGuestByUuid(host.catalog, run.guest);
    const schedule = await findSchedule(host.catalog, run.guest, run.schedule);
    if (schedule === undefined) return;
    await saveFor(undertaking, guest, run, storedSpec(schedule));
    await pruneIfNeeded(undertaking, guest);
  } catch (error) {
    if (signal.aborted) return;
    await fail(host, run, StasisError.from(error));
  }
}

async function saveFor(
  undertaking: Undertaking,
  guest: GuestRecord,
  run: RunRecord,
  spec: ScheduleSpec,
): Promise<void> {
  const { host, engine, signal } = undertaking;
  if (run.attempts >= MOST_ATTEMPTS)
    throw new StasisError('interrupted', `the daemon ended ${run.attempts} times while it was under way`);
  const process = host.supervisor.find(guest.uuid);
  if (process === undefined) {
    const why =
      guest.instance === null ? 'the guest does not run' : 'its QEMU process can not be reached just now';
    return skip(host, run, guest.name, why);
  }
  await makeRoom(undertaking, guest, process);
  const name = await freeName(host, guest, imageName(run.schedule, spec, Date.parse(run.dueAt)));
  await updateRun(host.catalog, run, { attempts: run.attempts + 1 });
  const { id, settled } = await submitWhenFree(
    engine,
    saveProcedure(host),
    {
      kind: 'save',
      subject: { guest: guest.uuid, guestName: guest.name, image: name },
      args: {
        ...{ name, live: true, quiesce: spec.quiesce },
        description: `by schedule ${run.schedule}`,
        schedule: { name: run.schedule, dueAt: run.dueAt },
      },
    },
    patience(signal, guest),
  );
  await updateRun(host.catalog, run, { operation: id });
  await settled;
}

/** Two due times may have the same name, in the hour that comes twice. */
async function freeName({ catalog }: Host, { uuid }: GuestRecord, wanted: string): Promise<string> {
  let name = wanted;
  for (let number = 2; (await findImage(catalog, uuid, name)) !== undefined; number += 1)
    name = `${wanted}-${number}`;
  return name;
}

/** @throws StasisError `over-quota` */
async function makeRoom(
  { host, engine, signal }: Undertaking,
  guest: GuestRecord,
  process: QemuProcess,
): Promise<void> {
  const { rules } = await outlook(host, guest.uuid);
  if (rules.quotaBytes === null && rules.quotaImages === null) return;
  const bytes = await residentGuestBytes(process, storedDefinition(guest));
  const newcomer = { images: 1, bytes };
  const { judgement, warning } = await outlook(host, guest.uuid, newcomer);
  if (warning !== null) throw overQuota(guest, warning);
  if (!judgement.verdicts.some(isToGo)) return;
  const { settled } = await submitWhenFree(
    engine,
    pruneProcedure(host),
    { kind: 'prune', subject: subjectOf(guest), args: { newcomer } },
    patience(signal, guest),
  );
  await settled;
}

/** An image was made, and the daemon died before others were removed for it. Never rejects. */
async function pruneAll(undertaking: Undertaking): Promise<void> {
  const { host, signal } = undertaking;
  try {
    const guests = await listGuests(host.catalog);
    const ruled = await listRetention(
      host.catalog,
      guests.map(({ uuid }) => uuid),
    );
    for (const guest of guests)
      if (ruled.has(guest.uuid) && !signal.aborted) await pruneIfNeeded(undertaking, guest);
  } catch (error) {
    host.log.error({ err: error }, 'what is left to prune could not be looked at');
  }
}

/** What can't be removed now is tried again after the next save. */
async function pruneIfNeeded({ host, engine, signal }: Undertaking, guest: GuestRecord): Promise<void> {
  try {
    const { judgement, warning } = await outlook(host, guest.uuid);
    if (warning === null && !judgement.verdicts.some(isToGo)) return;
    const { settled } = await submitWhenFree(
      engine,
      pruneProcedure(host),
      { kind: 'prune', subject: subjectOf(guest), args: {} },
      patience(signal, guest),
    );
    await settled;
  } catch (error) {
    const { code, message } = StasisError.from(error);
    if (!signal.aborted) host.log.warn({ guest: guest.uuid, code }, `nothing was pruned: ${message}`);
  }
}

function subjectOf({ uuid, name }: GuestRecord): Subject {
  return { guest: uuid, guestName: name, image: null };
}

function patience(signal: AbortSignal, { name }: GuestRecord): AbortSignal {
  const reason = new StasisError('busy', `guest ${name} was busy for ${PATIENCE_MS / 60_000} minutes`);
  return AbortSignal.any([signal, timeoutWith(PATIENCE_MS, reason)]);
}

async function skip(
  host: Host,
  run: Pick<RunRecord, 'guest' | 'schedule' | 'dueAt'>,
  guestName: string,
  why: string,
): Promise<void> {
  await settleRun(host.catalog, run, { state: 'skipped', message: why });
  await tellRun(host.events, run, guestName, 'skipped', why);
}

async function fail(host: Host, run: RunRecord, { code, message }: StasisError): Promise<void> {
  await settleRun(host.catalog, run, { state: 'failed', message });
  if (!(await hasGuest(host.catalog, run.guest))) return; // undefined meanwhile
  const { name } = await getGuestByUuid(host.catalog, run.guest);
  await tellRun(host.events, run, name, 'failed', message);
  host.log.warn({ guest: run.guest, schedule: run.schedule, code }, message);
}
