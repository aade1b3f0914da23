import type { QmpClient } from '../qmp/client.ts';

/**
 * Ends block jobs that nobody follows any more, because the daemon that began them died. A cancelled stream or
 * commit leaves every layer reading as before; it is begun again by who needs it.
 * @throws StasisError `qemu-failed`, `guest-crashed`
 */
export async function cancelJobs(qmp: QmpClient): Promise<void> {
  using ends = qmp.watch('BLOCK_JOB_COMPLETED', 'BLOCK_JOB_CANCELLED');
  for (const { device: id } of await qmp.execute('query-block-jobs')) {
    await qmp.execute('job-cancel', { id });
    await ends.next(({ data }) => data.device === id, { timeoutMs: 60_000 });
  }
}
