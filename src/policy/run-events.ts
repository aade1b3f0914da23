/** What became of a run of a schedule, when that is no image, is told. */
import type { RunRecord } from '../catalog/schedules.ts';
import type { EventLog } from '../operations/event-log.ts';

export async function tellRun(
  events: EventLog,
  { schedule, dueAt }: Pick<RunRecord, 'schedule' | 'dueAt'>,
  guest: string,
  outcome: 'skipped' | 'failed',
  why: string,
): Promise<void> {
  await events.publish({
    type: 'guest',
    action: `schedule-${outcome}`,
    guest,
    message: `schedule ${schedule} of ${guest}, due ${dueAt}, ${outcome}: ${why}`,
  });
}
