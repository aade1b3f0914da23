import { rm } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { StasisError } from '../../errors.ts';
import {
  PauseClock,
  withMigration,
  type CaptureMethod,
  type CaptureRequest,
  type CaptureResult,
} from './capture.ts';
import { allowanceAfter, FIRST_ALLOWANCE_MS, lengthMs, type Pass } from './convergence.ts';
import { readMemoryFile } from '../memory/memory-file.ts';
import { removeStalePages } from '../memory/memory-pages.ts';
import {
  fileChannel,
  STREAM_OFFSET,
  UNLIMITED_BYTES_PER_SECOND,
  waitForMigration,
  type MigrationWatch,
} from '../migration.ts';
import type { MigrationParameters } from '../qmp/commands.ts';
import type { MigrationInfo } from '../qmp/results.ts';
import type { QmpClient } from '../qmp/client.ts';
import { isRunning, leavePostmigrate, resumeGuest } from '../process/run-state.ts';
import { throwIfAborted } from '../wait.ts';

/** The most that QEMU takes as a limit. */
const MAX_DOWNTIME_LIMIT_MS = 2_000_000;

/**
 * How fast memory is written until QEMU has measured a speed for the first time, 0.1 s after the start. A guest whose
 * memory is through before that would be stopped at once, with all that it dirtied meanwhile still to write: QEMU has no
 * threshold then to hold the rest against ("nothing left by the estimate", migration_iteration_run() in 10.0).
 */
const FIRST_BYTES_PER_SECOND = 100 << 20;
const LOOK_AGAIN_MS = 10;
/** A stop that has to be prepared is, when the pass under way has so little left; or when so many have not come to it. */
const PREPARE_BEFORE_MS = 100;
const PREPARE_AFTER_PASSES = 4;
/** As good as no speed: after any page QEMU waits for the end of a tenth of a second. 0 would be no limit. */
const HELD_BYTES_PER_SECOND = 10;
/** So little is left only when nothing is: a guest that runs dirties more. In bytes per second, see `HELD_LIMIT_MS`. */
const HELD_SWITCHOVER_BANDWIDTH = 1000;
const HELD_LIMIT_MS = 1;

/**
 * The usual live capture: mapped-ram written while the guest runs, a stop of milliseconds at the end in which the
 * disks are switched. The image holds the state of that stop.
 *
 * ```
 * migrate → (guest runs, memory is written, pass by pass) → STOP → pre-switchover → onPaused → migrate-continue → completed → cont
 * ```
 *
 * The pause doesn't grow with memory, but a guest that dirties memory faster than it can be written would never get
 * there: convergence.ts says after each pass how long a last one may take, and when the guest is to be given up.
 *
 * A page that was written in an early pass and is zero in the end leaves its old bytes in the file: they are removed.
 *
 * A guest that was paused stays paused. Its run state is `postmigrate` then; `cont` goes on as usual.
 */
export const precopy: CaptureMethod = { name: 'precopy', capture };

/** QEMU stopped the guest before that was prepared. */
class StoppedTooEarly extends StasisError {
  constructor() {
    super('capture-failed', 'the guest was stopped before it was prepared for that');
  }
}

/** Thrown when the guest dirties memory too fast to be stopped within the wanted time. It runs on. */
export class NotConverging extends StasisError {
  constructor(passes: readonly Pass[], mostMs: number) {
    const last = passes.at(-1);
    super(
      'capture-failed',
      `the guest dirties memory faster than it can be written: after ${passes.length} passes the rest would still take ${Math.ceil(last === undefined ? 0 : lengthMs(last))} ms`,
      { details: { passes, mostMs } },
    );
  }
}

/**
 * A stop that has to be prepared (`onStopping`, to freeze the guest's file systems) is a race with QEMU, which stops the guest
 * when it sees fit, and then nobody in it can be asked for anything. So QEMU is kept from it: see `prepareStop`. Should it do
 * so all the same, the guest is let run, which lets the preparation come to its end, and all is done again with a prepared guest.
 */
async function capture(request: CaptureRequest): Promise<CaptureResult> {
  const { onStopping } = request;
  if (onStopping === undefined) return attempt(request);
  let stopping: Promise<void> | undefined;
  const once = () => (stopping ??= onStopping());
  try {
    return await attempt({ ...request, onStopping: once });
  } catch (error) {
    if (!(error instanceof StoppedTooEarly)) throw error;
    await once();
    await rm(request.file, { force: true });
    await request.makeFile?.();
    return attempt({ ...request, onStopping: undefined });
  }
}

async function attempt(request: CaptureRequest): Promise<CaptureResult> {
  const wasRunning = await isRunning(request.qmp);
  if (!wasRunning) await leavePostmigrate(request.qmp);
  const setup = {
    capabilities: ['mapped-ram', 'multifd', 'pause-before-switchover', 'events'],
    parameters: {
      'max-bandwidth': FIRST_BYTES_PER_SECOND,
      ...(wasRunning && request.onStopping !== undefined ? heldBack() : letGo(request)),
      'multifd-channels': 2,
    },
  } as const;
  const result = await withMigration(request, wasRunning, setup, () => transfer(request, wasRunning));
  await removeStalePages(request.file, await readMemoryFile(request.file, STREAM_OFFSET));
  return result;
}

async function transfer(request: CaptureRequest, wasRunning: boolean): Promise<CaptureResult> {
  const { qmp, file, onPaused, signal } = request;
  using migration = qmp.watch('MIGRATION', 'MIGRATION_PASS');
  using clock = new PauseClock(qmp);
  const begin = performance.now();

  await qmp.execute('migrate', { channels: [fileChannel(file)] }, { signal });
  await waitForFirstMeasure(qmp, signal);
  await qmp.execute('migrate-set-parameters', { 'max-bandwidth': UNLIMITED_BYTES_PER_SECOND });
  const fullSpeed = performance.now();
  const heldMs = wasRunning ? await prepareStop(request, migration) : 0;
  await waitForSwitchover(request, migration);
  clock.mark('stop');
  await onPaused();
  clock.mark('disks');
  // From here on there is no way back, so the signal isn't looked at any more.
  await qmp.execute('migrate-continue', { state: 'pre-switchover' });
  await waitForMigration(qmp, migration, ['completed']);
  clock.mark('memory');
  if (wasRunning) await resumeGuest(qmp);
  clock.mark('resume');
  const end = performance.now();
  if (wasRunning) await request.onResumed?.();

  const { ram } = await qmp.execute('query-migrate');
  const bytesWritten = ram?.transferred ?? 0;
  return {
    method: 'precopy',
    pause: wasRunning ? await clock.read() : undefined,
    bytesWritten,
    bytesPerSecond: (bytesWritten / (end - fullSpeed - heldMs)) * 1000,
    totalMs: end - begin,
    passes: ram?.['dirty-sync-count'] ?? 0,
  };
}

/** Nothing announces it; an end of the migration by then is seen by whoever waits for more. */
async function waitForFirstMeasure(qmp: QmpClient, signal: AbortSignal | undefined): Promise<void> {
  for (;;) {
    const { status, ram } = await qmp.execute('query-migrate', undefined, { signal });
    if ((status !== 'setup' && status !== 'active') || (ram?.mbps ?? 0) > 0) return;
    await delay(LOOK_AGAIN_MS, undefined, { signal });
  }
}

/**
 * Prepares the stop with little left to write, so that a guest whose file systems are frozen is not so for the length of the
 * transfer. QEMU would stop the guest meanwhile: there is nothing that forbids it but having more to write than its threshold,
 * which is therefore less than a page. While the guest is prepared QEMU is slowed down until a pass takes a tenth of
 * a second however little it is about: in that time a guest that is at work dirties something.
 * @returns how long it was held up
 * @throws StoppedTooEarly, and what `onStopping` throws
 */
async function prepareStop(request: CaptureRequest, migration: MigrationWatch): Promise<number> {
  const { qmp, signal, onStopping } = request;
  if (onStopping === undefined) return 0;
  await waitForTheEnd(request);
  const begin = performance.now();
  await qmp.execute('migrate-set-parameters', { 'max-bandwidth': HELD_BYTES_PER_SECOND });
  const prepared = new AbortController();
  const states = ['pre-switchover'] as const;
  const tooEarly = waitForMigration(qmp, migration, states, { signal: prepared.signal }).then(() => {
    throw new StoppedTooEarly();
  });
  try {
    await Promise.race([onStopping(), tooEarly]);
  } finally {
    prepared.abort();
    await tooEarly.catch(() => undefined); // it was told in the race, or is no news
  }
  throwIfAborted(signal, 'the capture');
  await qmp.execute('migrate-set-parameters', {
    'max-bandwidth': UNLIMITED_BYTES_PER_SECOND,
    ...letGo(request),
  });
  return performance.now() - begin;
}

/** Nothing announces it. What is left may also be zeros, which take no time: then it is noticed in the next pass. */
async function waitForTheEnd({ qmp, signal, onProgress }: CaptureRequest): Promise<void> {
  for (;;) {
    const { status, ram } = await qmp.execute('query-migrate', undefined, { signal });
    if (status !== 'active' || ram === undefined) throw new StoppedTooEarly();
    const { remaining, total, mbps } = ram;
    onProgress?.({ bytesDone: total - remaining, bytesTotal: total });
    const leftMs = lengthMs({ remainingBytes: remaining, bytesPerSecond: (mbps * 1e6) / 8 });
    if (leftMs <= PREPARE_BEFORE_MS || ram['dirty-sync-count'] > PREPARE_AFTER_PASSES) return;
    await delay(LOOK_AGAIN_MS, undefined, { signal });
  }
}

function heldBack(): MigrationParameters {
  return {
    'avail-switchover-bandwidth': HELD_SWITCHOVER_BANDWIDTH,
    'downtime-limit': HELD_LIMIT_MS,
  };
}

function letGo(request: CaptureRequest): MigrationParameters {
  return { 'avail-switchover-bandwidth': 0, 'downtime-limit': downtimeLimit(firstAllowance(request)) };
}

async function waitForSwitchover(request: CaptureRequest, migration: MigrationWatch): Promise<void> {
  const { qmp, signal, onProgress, lastPassMs = Infinity } = request;
  const passes: Pass[] = [];
  let allowanceMs = firstAllowance(request);
  const onPass = async ({ ram }: MigrationInfo): Promise<void> => {
    if (ram === undefined) return;
    passes.push({ remainingBytes: ram.remaining, bytesPerSecond: (ram.mbps * 1e6) / 8 });
    const next = allowanceAfter(passes, lastPassMs);
    if (next === undefined) throw new NotConverging(passes, lastPassMs);
    if (next === allowanceMs) return;
    allowanceMs = next;
    await qmp.execute('migrate-set-parameters', { 'downtime-limit': downtimeLimit(next) });
  };
  await waitForMigration(qmp, migration, ['pre-switchover'], { signal, onProgress, onPass });
}

function firstAllowance({ lastPassMs = Infinity }: CaptureRequest): number {
  return Math.min(FIRST_ALLOWANCE_MS, lastPassMs);
}

/** In QEMU's whole milliseconds. Never 0, which to QEMU is no threshold at all: see FIRST_BYTES_PER_SECOND. */
function downtimeLimit(allowanceMs: number): number {
  return Math.max(1, Math.min(Math.floor(allowanceMs), MAX_DOWNTIME_LIMIT_MS));
}
