/**
 * The memory of a lazily restored guest, from the moment it runs until all of it is there. If its pager dies
 * meanwhile QEMU pauses the migration, and the guest stands still where it touches what it hasn't got: another pager
 * takes over then (QEMU's `migrate-recover`).
 */
import { StasisError } from '../../errors.ts';
import { resetMigration } from '../build/capabilities.ts';
import { isArriving, type MigrationProgress } from '../migration.ts';
import { PAGER_SOCKET, readPagerRequest, readPagerStatus, removePagerRequest } from '../pager/pager-files.ts';
import { startAnotherPager, type PagerProcess } from '../pager/pager-process.ts';
import { endProcess, type QemuProcess } from '../process/process.ts';
import { findPagerProcesses } from '../process/process-scan.ts';
import type { MigrationStatus } from '../qmp/results.ts';
import type { QmpWatch } from '../qmp/watch.ts';
import type { QmpClient } from '../qmp/client.ts';
import type { WaitOptions } from '../wait.ts';

const POLL_INTERVAL_MS = 200;
/** Pagers that die one after the other without having brought anything. */
const MAX_VAIN_ATTEMPTS = 3;

type Arriving = Pick<QemuProcess, 'qmp' | 'runDirectory'>;

/**
 * Waits until a guest has all of its memory; at once when it was not restored lazily. Only then can it be captured, and
 * does it no longer need the file.
 * @throws StasisError `cancelled`, `timeout`, `guest-crashed`
 */
export async function memoryArrived(
  { qmp, runDirectory }: Arriving,
  options: WaitOptions & { readonly onProgress?: (progress: MigrationProgress) => void } = {},
): Promise<void> {
  const { onProgress, ...wait } = options;
  using migration = qmp.watch('MIGRATION');
  while (isArriving((await qmp.execute('query-migrate', undefined, wait)).status)) {
    const status = await readPagerStatus(runDirectory);
    if (status !== undefined) onProgress?.(status);
    await eventOrPoll(migration, wait);
  }
}

async function eventOrPoll(migration: QmpWatch<'MIGRATION'>, { signal }: WaitOptions): Promise<void> {
  try {
    await migration.next(undefined, { signal, timeoutMs: POLL_INTERVAL_MS });
  } catch (error) {
    if (!(error instanceof StasisError && error.code === 'timeout')) throw error;
  }
}

/**
 * Sees to it that the memory of a guest arrives, and puts QEMU's capabilities back when it has. Returns at once for a
 * guest that was not restored lazily, and also finds one whose pager died while nobody watched.
 *
 * @param onRecovery is told when a pager had to be replaced, and why
 * @throws StasisError `restore-failed` when it can't arrive any more: the guest would stand still for ever, end it.
 *   `interrupted`, `guest-crashed` when the QMP connection ends first
 */
export async function bringMemory(
  process: Arriving,
  onRecovery: (reason: string) => Promise<void>,
): Promise<void> {
  const { qmp, runDirectory } = process;
  if ((await readPagerRequest(runDirectory)) === undefined) return;
  using migration = qmp.watch('MIGRATION');
  let pager: PagerProcess | undefined;
  let [bytesDone, vainAttempts] = [0, 0];
  for (;;) {
    // Of an abandoned one QEMU may be unable to tell: its main loop itself may wait for a page that doesn't come.
    const isAlone = pager === undefined && (await isAbandoned(runDirectory));
    if (!(isAlone && (await listensAgain(qmp)))) {
      if ((await outcome(qmp, migration, pager)) === 'complete') break;
      if (!(await listensAgain(qmp))) continue;
    }
    migration.drain(); // of the pause that is over now
    for (const pid of await findPagerProcesses(runDirectory)) await endProcess(pid, 0);
    const status = await readPagerStatus(runDirectory);
    const reason = (await pager?.ended) ?? status?.reason ?? 'it was killed';
    vainAttempts = (status?.bytesDone ?? 0) > bytesDone ? 0 : vainAttempts + 1;
    bytesDone = status?.bytesDone ?? 0;
    if (vainAttempts > MAX_VAIN_ATTEMPTS) throw lost(`its pager ended (${reason}), and so did others`);
    await onRecovery(reason);
    pager = await startAnotherPager(runDirectory);
    pager.begin('recover');
  }
  await resetMigration(qmp);
  await removePagerRequest(runDirectory);
}

/** Whether a guest's memory should be arriving, and nobody brings it. */
export async function isAbandoned(runDirectory: string): Promise<boolean> {
  if ((await readPagerRequest(runDirectory)) === undefined) return false;
  if ((await readPagerStatus(runDirectory))?.state === 'done') return false; // a moment before the request goes
  return (await findPagerProcesses(runDirectory)).length === 0;
}

type Outcome = 'complete' | 'paused';

/** How the arrival goes on, when that is decided. @param pager the one that we have started ourselves */
async function outcome(
  qmp: QmpClient,
  migration: QmpWatch<'MIGRATION'>,
  pager: PagerProcess | undefined,
): Promise<Outcome> {
  const over = new AbortController();
  try {
    return await Promise.race([
      outcomeTold(migration, pager, over.signal),
      pager === undefined ? outcomeAsked(qmp) : outcomeFailed(pager),
    ]);
  } finally {
    over.abort();
  }
}

async function outcomeTold(
  migration: QmpWatch<'MIGRATION'>,
  pager: PagerProcess | undefined,
  signal: AbortSignal,
): Promise<Outcome> {
  for (;;) {
    const { data } = await migration.next(undefined, { signal });
    const decided = outcomeOf(data.status);
    // A pager of ours ends when QEMU loses it: a pause that is told before is the one that it was started for.
    if (decided === 'complete' || (decided === 'paused' && pager === undefined)) return decided;
  }
}

async function outcomeAsked(qmp: QmpClient): Promise<Outcome> {
  const { status } = await qmp.execute('query-migrate');
  return outcomeOf(status) ?? new Promise(() => undefined);
}

/** A pager that ends before it reaches QEMU, which doesn't notice. */
async function outcomeFailed(pager: PagerProcess): Promise<Outcome> {
  return (await pager.ended) === undefined ? new Promise(() => undefined) : 'paused';
}

function outcomeOf(status: MigrationStatus | undefined): Outcome | undefined {
  if (status === 'postcopy-paused') return 'paused';
  return isArriving(status) ? undefined : 'complete';
}

/**
 * Lets QEMU listen for another pager, if the migration is paused. Out of band: an ordinary command would wait behind one
 * that waits for a page.
 */
async function listensAgain(qmp: QmpClient): Promise<boolean> {
  try {
    await qmp.executeOutOfBand('migrate-recover', { uri: `unix:${PAGER_SOCKET}` });
    return true;
  } catch (error) {
    const { code, message } = StasisError.from(error);
    if (code !== 'qemu-failed') throw error;
    if (message.includes('only be run when postcopy is paused')) return false;
    throw lost(message);
  }
}

function lost(reason: string): StasisError {
  return new StasisError(
    'restore-failed',
    `the rest of its memory can not be brought any more: ${reason}; restore it again`,
  );
}
