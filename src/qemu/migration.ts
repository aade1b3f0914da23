import { setTimeout as delay } from 'node:timers/promises';
import { StasisError } from '../errors.ts';
import type { MigrationChannel, QmpEvent } from './qmp/commands.ts';
import type { MigrationInfo, MigrationStatus } from './qmp/results.ts';
import type { QmpWatch } from './qmp/watch.ts';
import type { QmpClient } from './qmp/client.ts';

/**
 * How often a running migration is asked for its progress. It is also the net under the events: one that is lost would
 * leave a guest standing still.
 */
const POLL_INTERVAL_MS = 200;

const ENDED: ReadonlySet<MigrationStatus> = new Set(['none', 'completed', 'failed', 'cancelled']);

/** Whether this is a guest that runs and hasn't got all of its memory yet. We are never the source of such a one. */
export function isArriving(status: MigrationStatus | undefined): boolean {
  return status?.startsWith('postcopy-') === true;
}

/** The same, asked of QEMU. @throws StasisError `guest-crashed` */
export async function memoryIsArriving(qmp: QmpClient): Promise<boolean> {
  return isArriving((await qmp.execute('query-migrate')).status);
}

/**
 * Where the stream begins in every file that we let QEMU write, and a rule: never 0. QEMU truncates the file to the
 * offset; ext4 flushes a file that was truncated to 0 when it is closed, and QEMU closes it inside the pause (300 ms
 * instead of 13). A multiple of the block size, for direct I/O.
 */
export const STREAM_OFFSET = 4096;

/** Enough for any storage: the limit that matters is the device's. */
export const UNLIMITED_BYTES_PER_SECOND = 64 * 2 ** 30;

/** One moment of a transfer. `bytesDone` may fall: a running guest dirties memory that was written already. */
export interface MigrationProgress {
  readonly bytesDone: number;
  readonly bytesTotal: number;
}

export interface MigrationWait {
  readonly signal?: AbortSignal | undefined;
  /** Gives up waiting with `timeout`; the migration goes on. */
  readonly timeoutMs?: number | undefined;
  readonly onProgress?: ((progress: MigrationProgress) => void) | undefined;
  /** Runs as QEMU begins to go through memory once more, when the watch has `MIGRATION_PASS`. What it throws ends the wait. */
  readonly onPass?: ((info: MigrationInfo) => Promise<void>) | undefined;
  /** What a migration that ended otherwise is called. */
  readonly failure?: 'capture-failed' | 'restore-failed';
}

/** The events of a migration; its passes too for who follows them. */
export type MigrationWatch = QmpWatch<'MIGRATION'> | QmpWatch<'MIGRATION' | 'MIGRATION_PASS'>;

/** A file as the other end of a migration. The structured form of the address: any path will do, also with commas. */
export function fileChannel(file: string): MigrationChannel {
  return { 'channel-type': 'main', addr: { transport: 'file', filename: file, offset: STREAM_OFFSET } };
}

/** QEMU exits when a load fails, with its reason only in the log, unless told (since 9.1) to stay and tell. */
export function stayOnError(qmp: QmpClient): { 'exit-on-error'?: false } {
  const { major, minor } = qmp.version;
  return major > 9 || (major === 9 && minor >= 1) ? { 'exit-on-error': false } : {};
}

/**
 * Waits until the migration reaches one of the states. Works from a watch that was opened *before* the migration was
 * started, so that it reacts in the instant of the event.
 *
 * @throws StasisError `failure` with QEMU's own words when the migration ended without reaching it; `cancelled`,
 *   `timeout`, `guest-crashed`
 */
export async function waitForMigration(
  qmp: QmpClient,
  watch: MigrationWatch,
  states: readonly MigrationStatus[],
  wait: MigrationWait = {},
): Promise<MigrationStatus> {
  const giveUp = performance.now() + (wait.timeoutMs ?? Infinity);
  for (;;) {
    const event = await eventOrPoll(
      watch,
      Math.min(POLL_INTERVAL_MS, giveUp - performance.now()),
      wait.signal,
    );
    if (event?.event === 'MIGRATION' && states.includes(event.data.status)) return event.data.status; // the guest may be waiting
    const info = await qmp.execute('query-migrate', undefined, { signal: wait.signal });
    const status = info.status ?? 'none';
    if (states.includes(status)) return status;
    if (ENDED.has(status)) throw migrationError(info, wait.failure ?? 'capture-failed');
    reportProgress(info, wait.onProgress);
    if (event?.event === 'MIGRATION_PASS') await wait.onPass?.(info);
    if (performance.now() >= giveUp) throw new StasisError('timeout', `the migration is still "${status}"`);
  }
}

/**
 * Cancels the migration, if one is going on, and waits for its end. A guest that ran before is running again then:
 * QEMU sees to that also when it was already stopped for the switchover.
 * @throws StasisError `guest-crashed`
 */
export async function cancelMigration(qmp: QmpClient): Promise<void> {
  using watch = qmp.watch('MIGRATION');
  const { status = 'none' } = await qmp.execute('query-migrate');
  if (ENDED.has(status)) return;
  if (status === 'setup' || status === 'active') await letChannelsRest(qmp);
  await qmp.execute('migrate_cancel');
  await waitForMigration(qmp, watch, [...ENDED]);
}

/** QEMU counts its rate in tenths of a second: this is the least that it doesn't take for no limit at all. */
const LEAST_BYTES_PER_SECOND = 10;
/** What a channel needs to take up what was queued for it, also on a busy host; a fifth of the pause between two bursts. */
const REST_MS = 20;
/** All memory could be zeros, which no rate holds back; then it is soon through. */
const MAX_RESTLESS_MS = 5000;

/**
 * With multifd, QEMU (10.0) frees the bitmaps of the file *before* it ends the channels: one that has been given pages
 * and has not begun yet writes to freed memory then, and the guest is gone (with two busy cores, 10 of 266 cancelled
 * captures). So next to nothing is let through first, and the cancellation comes when the channels have taken up all
 * that they were given. Whoever sets up the next migration sets the rate again.
 */
async function letChannelsRest(qmp: QmpClient): Promise<void> {
  const capabilities = await qmp.execute('query-migrate-capabilities');
  if (!capabilities.some(({ capability, state }) => capability === 'multifd' && state)) return;
  await qmp.execute('migrate-set-parameters', { 'max-bandwidth': LEAST_BYTES_PER_SECOND });
  const giveUp = performance.now() + MAX_RESTLESS_MS;
  for (let before: number | undefined; performance.now() < giveUp;) {
    const { status = 'none', ram } = await qmp.execute('query-migrate');
    const pages = (ram?.normal ?? 0) + (ram?.duplicate ?? 0);
    if (ENDED.has(status) || pages === before) return;
    before = pages;
    await delay(REST_MS);
  }
}

function migrationError(info: MigrationInfo, code: 'capture-failed' | 'restore-failed'): StasisError {
  const reason = info['error-desc'] ?? `it ended as "${info.status ?? 'none'}"`;
  const verb = code === 'capture-failed' ? 'save' : 'load';
  return new StasisError(code, `QEMU could not ${verb} the guest's memory: ${reason}`, {
    details: { status: info.status, desc: info['error-desc'] },
  });
}

function reportProgress(info: MigrationInfo, onProgress: MigrationWait['onProgress']): void {
  if (info.ram === undefined || onProgress === undefined) return;
  const { total, remaining } = info.ram;
  onProgress({ bytesDone: total - remaining, bytesTotal: total });
}

async function eventOrPoll(
  watch: MigrationWatch,
  timeoutMs: number,
  signal: AbortSignal | undefined,
): Promise<QmpEvent<'MIGRATION' | 'MIGRATION_PASS'> | undefined> {
  try {
    return await watch.next(undefined, { signal, timeoutMs: Math.max(0, timeoutMs) });
  } catch (error) {
    if (error instanceof StasisError && error.code === 'timeout') return undefined;
    throw error;
  }
}
