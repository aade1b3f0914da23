import { StasisError } from '../../errors.ts';
import type { RunState } from '../qmp/results.ts';
import type { QmpClient } from '../qmp/client.ts';

/** QEMU's main loop lets a finished migration settle within milliseconds. */
const SETTLE_TIMEOUT_MS = 30_000;

/** Whether the guest's CPUs run (or would, if the guest had not put itself to sleep). */
export async function isRunning(qmp: QmpClient): Promise<boolean> {
  const { running, status } = await settledStatus(qmp);
  return running || status === 'suspended';
}

/**
 * Lets the guest run, whatever it was paused for, and waits for a migration to leave the way first. Does nothing to
 * a running guest.
 * @throws StasisError `qemu-failed`, `guest-crashed`
 */
export async function resumeGuest(qmp: QmpClient): Promise<void> {
  const { running } = await settledStatus(qmp);
  if (!running) await qmp.execute('cont');
}

/**
 * Makes a paused guest ready to be captured again. After one capture its run state is `postmigrate`, from which
 * QEMU allows no other; the only way out is to let it run, so it runs for the moment between two commands. It
 * answers with the disks switched, so that moment goes to the layers that are the guest's now.
 */
export async function leavePostmigrate(qmp: QmpClient): Promise<void> {
  const { status } = await settledStatus(qmp);
  if (status !== 'postmigrate') return;
  await Promise.all([qmp.execute('cont'), qmp.execute('stop')]);
}

/**
 * Makes the disks of a guest that stands still its own again. QEMU lets go of them ("inactive") at the end of a migration out,
 * and takes them after one in only when the guest runs; until then no block job can work on them. Before QEMU 10.0 that
 * can't be changed: jobs on such a guest fail there until it has run.
 */
export async function holdDisks(qmp: QmpClient): Promise<void> {
  if (await isRunning(qmp)) return;
  try {
    await qmp.execute('blockdev-set-active', { active: true });
  } catch (error) {
    if (StasisError.from(error).details?.['class'] !== 'CommandNotFound') throw error;
  }
}

/**
 * The run state once it isn't `finish-migrate`. QEMU announces `completed` from the migration thread just *before*
 * it leaves that state, and refuses `cont` in it; nothing announces the change, so we ask again.
 */
async function settledStatus(qmp: QmpClient): Promise<{ status: RunState; running: boolean }> {
  const giveUp = performance.now() + SETTLE_TIMEOUT_MS;
  for (;;) {
    const state = await qmp.execute('query-status');
    if (state.status !== 'finish-migrate') return state;
    if (performance.now() > giveUp)
      throw new StasisError('timeout', 'the migration does not leave its final state');
  }
}
