import { StasisError } from '../../errors.ts';
import {
  inOnePass,
  PauseClock,
  withMigration,
  type CaptureMethod,
  type CaptureRequest,
  type CaptureResult,
} from './capture.ts';
import { prepareMigration, resetMigration } from '../build/capabilities.ts';
import { readMemoryFile } from '../memory/memory-file.ts';
import { writeBitmaps } from '../memory/memory-pages.ts';
import { fileChannel, STREAM_OFFSET, UNLIMITED_BYTES_PER_SECOND, waitForMigration } from '../migration.ts';
import type { QmpClient } from '../qmp/client.ts';
import { memoryFileOf } from '../restore/mapped.ts';
import { isRunning } from '../process/run-state.ts';
import { throwIfAborted } from '../wait.ts';

const CAPABILITIES = ['mapped-ram', 'background-snapshot', 'events'] as const;
/** Tracking begins within the pause: QEMU looks at every page of memory first, about 10 ms for a GiB. */
const TRACKING_TIMEOUT_MS = 60_000;

/**
 * The live capture of a guest that dirties memory faster than it can be written: all memory is write-protected in a
 * short stop, and written while the guest runs; a guest that writes to a page that is not yet saved waits for that
 * page. The image holds the state of the stop, every page is written once.
 *
 * ```
 * stop → onPaused → migrate → memory is tracked → cont → (guest runs, memory is written) → completed
 * ```
 *
 * QEMU announces `active` *before* it has taken the state of the devices. A guest that is let run then is captured
 * half in one instant and half in another, and QEMU stops it once more: pages that are counted as saved are the sign
 * that all is taken, and a second STOP is the sign that it wasn't.
 *
 * The pause grows with memory. Afterwards the bitmaps are written, which QEMU 9.0 to 11.1 leave out.
 */
export const background: CaptureMethod = { name: 'background', capture };

async function capture(request: CaptureRequest): Promise<CaptureResult> {
  if (!(await isRunning(request.qmp)))
    throw new StasisError('invalid-state', 'a paused guest has no need of a background capture');
  const setup = {
    capabilities: CAPABILITIES,
    parameters: { 'max-bandwidth': UNLIMITED_BYTES_PER_SECOND },
  };
  const result = await withMigration(request, true, setup, () => transfer(request));
  await writeBitmaps(request.file, await readMemoryFile(request.file, STREAM_OFFSET));
  return result;
}

async function transfer(request: CaptureRequest): Promise<CaptureResult> {
  const { qmp, file, onPaused, onProgress, signal } = request;
  using migration = qmp.watch('MIGRATION');
  using clock = new PauseClock(qmp);
  const begin = performance.now();
  await request.onStopping?.();
  throwIfAborted(signal, 'the capture');
  await qmp.execute('stop');
  clock.mark('stop');
  await onPaused();
  clock.mark('disks');
  await qmp.execute('migrate', { channels: [fileChannel(file)] });
  await memoryIsTracked(qmp);
  clock.mark('memory');
  await qmp.execute('cont');
  clock.mark('resume');
  await request.onResumed?.();
  const pause = await clock.read();

  await waitForMigration(qmp, migration, ['completed'], { signal, onProgress });
  if (clock.hasStoppedAgain())
    throw new StasisError('capture-failed', 'QEMU stopped the guest again: its memory is of two instants');
  return { method: 'background', pause, ...(await inOnePass(qmp, begin)) };
}

/** Nothing announces it, and the guest stands still: so we ask without a break. */
async function memoryIsTracked(qmp: QmpClient): Promise<void> {
  const giveUp = performance.now() + TRACKING_TIMEOUT_MS;
  for (;;) {
    const info = await qmp.execute('query-migrate');
    if ((info.ram?.normal ?? 0) + (info.ram?.duplicate ?? 0) > 0) return;
    if (info.status === 'failed' || info.status === 'completed' || performance.now() > giveUp) {
      throw new StasisError(
        'capture-failed',
        `QEMU could not track the guest's memory: ${info['error-desc'] ?? info.status ?? 'no answer'}`,
      );
    }
  }
}

/**
 * Why a guest's memory can't be captured in the background, for a person, with the cure; undefined when it can.
 * QEMU is asked, in the only way it answers: by turning the capability on, and off again. The guest doesn't notice.
 */
export async function whyNotBackground(qmp: QmpClient): Promise<string | undefined> {
  if ((await memoryFileOf(qmp)) !== undefined)
    return 'its memory is mapped from an image; restore it with --method lazy or --eager instead';
  try {
    await prepareMigration(qmp, CAPABILITIES, {});
    return undefined;
  } catch (error) {
    const { message } = StasisError.from(error);
    return `QEMU refuses it: ${message}; the daemon needs the right to use userfaultfd, see \`stasis doctor\``;
  } finally {
    await resetMigration(qmp);
  }
}
