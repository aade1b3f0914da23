import {
  inOnePass,
  withMigration,
  type CaptureMethod,
  type CaptureRequest,
  type CaptureResult,
} from './capture.ts';
import { supportsDirectIo } from '../memory/direct-io.ts';
import { fileChannel, UNLIMITED_BYTES_PER_SECOND, waitForMigration } from '../migration.ts';
import { isRunning, leavePostmigrate } from '../process/run-state.ts';

/**
 * The capture of a guest that is to stop anyway: each page is written once, with direct I/O where the file system
 * has it (2 to 4 times as fast as through the page cache; for a live capture its last pass would be too slow).
 *
 * ```
 * stop → onPaused → migrate → completed
 * ```
 *
 * On success the guest stands still in `postmigrate`, its disks inactive: end it, or undo with `resumeGuest`, when
 * what comes after the capture fails. On failure and abort it is what it was before.
 */
export const stopped: CaptureMethod = { name: 'stopped', capture };

async function capture(request: CaptureRequest): Promise<CaptureResult> {
  const directIo = await supportsDirectIo(request.file, 'write');
  const wasRunning = await isRunning(request.qmp);
  if (!wasRunning) await leavePostmigrate(request.qmp);
  const setup = {
    capabilities: ['mapped-ram', 'multifd', 'events'],
    parameters: {
      'max-bandwidth': UNLIMITED_BYTES_PER_SECOND,
      'multifd-channels': 2,
      'direct-io': directIo,
    },
  } as const;
  return await withMigration(request, wasRunning, setup, () => transfer(request));
}

async function transfer({ qmp, file, onPaused, onProgress, signal }: CaptureRequest): Promise<CaptureResult> {
  using migration = qmp.watch('MIGRATION');
  const begin = performance.now();
  await qmp.execute('stop', undefined, { signal });
  await onPaused();
  await qmp.execute('migrate', { channels: [fileChannel(file)] }, { signal });
  await waitForMigration(qmp, migration, ['completed'], { signal, onProgress });
  return { method: 'stopped', pause: undefined, ...(await inOnePass(qmp, begin)) };
}
