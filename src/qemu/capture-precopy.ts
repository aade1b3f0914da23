import { StasisError } from '../errors.ts';
import {
  PauseClock,
  withMigration,
  type CaptureMethod,
  type CaptureRequest,
  type CaptureResult,
} from './capture.ts';
import { readMemoryFile } from './memory-file.ts';
import { removeStalePages } from './memory-pages.ts';
import { fileChannel, STREAM_OFFSET, UNLIMITED_BYTES_PER_SECOND, waitForMigration } from './migration.ts';
import type { QmpWatch } from './qmp-watch.ts';
import { isRunning, leavePostmigrate, resumeGuest } from './run-state.ts';

/** QEMU stops the guest when it expects to write what is still dirty within this time. */
const DOWNTIME_LIMIT_MS = 20;
const MAX_DOWNTIME_LIMIT_MS = 2_000_000;
const DEFAULT_TIME_LIMIT_MS = 10 * 60_000;
/** Past the time limit, every tenth of it, the guest is allowed a pause this many times longer. */
const DOWNTIME_FACTOR = 4;

/**
 * The usual live capture: mapped-ram written while the guest runs, a stop of milliseconds at the end in which the
 * disks are switched. The image holds the state of that stop.
 *
 * ```
 * migrate → (guest runs, memory is written) → STOP → pre-switchover → onPaused → migrate-continue → completed → cont
 * ```
 *
 * The pause doesn't grow with memory, but a guest that dirties memory faster than it can be written would never get
 * there. So after `timeLimitMs` (default 10 min; the first pass is always let finish) the allowed pause grows step by
 * step, 80 ms, 320 ms, …, until it lets QEMU stop the guest whatever is left: the transfer ends after about twice
 * the limit, at the latest.
 *
 * A page that was written in an early pass and is zero in the end leaves its old bytes in the file: they are removed.
 *
 * A guest that was paused stays paused. Its run state is `postmigrate` then; `cont` goes on as usual.
 */
export const precopy: CaptureMethod = { name: 'precopy', capture };

async function capture(request: CaptureRequest): Promise<CaptureResult> {
  const wasRunning = await isRunning(request.qmp);
  if (!wasRunning) await leavePostmigrate(request.qmp);
  const setup = {
    capabilities: ['mapped-ram', 'multifd', 'pause-before-switchover', 'events'],
    parameters: {
      'max-bandwidth': UNLIMITED_BYTES_PER_SECOND,
      'downtime-limit': DOWNTIME_LIMIT_MS,
      'multifd-channels': 2,
    },
  } as const;
  const result = await withMigration(request, wasRunning, setup, () => transfer(request, wasRunning));
  await removeStalePages(request.file, await readMemoryFile(request.file, STREAM_OFFSET));
  return result;
}

async function transfer(request: CaptureRequest, wasRunning: boolean): Promise<CaptureResult> {
  const { qmp, file, onPaused, signal } = request;
  using migration = qmp.watch('MIGRATION');
  using clock = new PauseClock(qmp);
  const begin = performance.now();

  await qmp.execute('migrate', { channels: [fileChannel(file)] }, { signal });
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

  const { ram } = await qmp.execute('query-migrate');
  return {
    method: 'precopy',
    pause: wasRunning ? await clock.read() : undefined,
    bytesWritten: ram?.transferred ?? 0,
    totalMs: performance.now() - begin,
    passes: ram?.['dirty-sync-count'] ?? 0,
  };
}

async function waitForSwitchover(request: CaptureRequest, migration: QmpWatch<'MIGRATION'>): Promise<void> {
  const { qmp, signal, onProgress, timeLimitMs = DEFAULT_TIME_LIMIT_MS } = request;
  let timeoutMs = timeLimitMs;
  let downtimeLimitMs = DOWNTIME_LIMIT_MS;
  for (;;) {
    try {
      await waitForMigration(qmp, migration, ['pre-switchover'], { signal, onProgress, timeoutMs });
      return;
    } catch (error) {
      if (!(error instanceof StasisError && error.code === 'timeout')) throw error;
    }
    timeoutMs = timeLimitMs / 10;
    const { ram } = await qmp.execute('query-migrate');
    if ((ram?.['dirty-sync-count'] ?? 0) < 2) continue; // the first pass ends by itself
    downtimeLimitMs = Math.min(downtimeLimitMs * DOWNTIME_FACTOR, MAX_DOWNTIME_LIMIT_MS);
    await qmp.execute('migrate-set-parameters', { 'downtime-limit': downtimeLimitMs });
  }
}
