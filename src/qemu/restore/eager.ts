import { prepareMigration, resetMigration } from '../build/capabilities.ts';
import { supportsDirectIo } from '../memory/direct-io.ts';
import { fileChannel, stayOnError, waitForMigration } from '../migration.ts';
import type { QemuProcess } from '../process/process.ts';
import type { LoadRequest, RestoreMethod } from './restore.ts';

/**
 * Loads all of a mapped-ram file before the guest runs: independent of the file afterwards. With direct I/O where
 * the file system has it, since the file will not be read again.
 */
export const eager: RestoreMethod = {
  name: 'eager',
  bringsMemory: false,
  // -S: QEMU would otherwise let a guest run that was saved running, before we say so.
  machineArgs: () => ['-S', '-incoming', 'defer'],
  load,
};

async function load({ qmp }: QemuProcess, request: LoadRequest): Promise<{ readonly loadMs: number }> {
  const { file, onProgress, signal } = request;
  const directIo = await supportsDirectIo(file, 'read');
  using migration = qmp.watch('MIGRATION');
  const begin = performance.now();
  await prepareMigration(qmp, ['mapped-ram', 'multifd', 'events'], {
    'multifd-channels': 2,
    'direct-io': directIo,
  });
  await qmp.execute('migrate-incoming', { channels: [fileChannel(file)], ...stayOnError(qmp) }, { signal });
  await waitForMigration(qmp, migration, ['completed'], { signal, onProgress, failure: 'restore-failed' });
  await resetMigration(qmp);
  return { loadMs: performance.now() - begin };
}
