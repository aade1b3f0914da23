import type { GuestState } from '../api/schemas.ts';
import type { GuestRecord } from '../catalog/guests.ts';
import type { OperationRecord } from '../catalog/operations.ts';
import type { Run, Supervisor } from '../guests/supervisor.ts';

/** What a guest is doing. @param operation what is under way with it */
export function guestState(
  record: Pick<GuestRecord, 'uuid' | 'instance' | 'crashed'>,
  run: Run | undefined,
  operation: OperationRecord | undefined,
): GuestState {
  if (operation?.guest !== record.uuid) operation = undefined; // held for another guest's sake
  if (operation?.procedure === 'save') return 'saving';
  if (operation?.procedure === 'restore') return 'restoring';
  if (run !== undefined) return run.state;
  // A process that doesn't answer is there all the same.
  if (record.instance !== null) return 'paused';
  return record.crashed === 1 ? 'crashed' : 'stopped';
}

/**
 * What the guests' processes do, for who reads the catalog between this call and its result's: a process that ended meanwhile was
 * there when the catalog said so, and is not one that doesn't answer.
 * @param guests of whom it is asked, by UUID
 */
export function runsAround(
  supervisor: Supervisor,
  guests: readonly string[] = supervisor.liveGuests(),
): (record: Pick<GuestRecord, 'uuid' | 'instance'>) => Run | undefined {
  const before = new Map(guests.map((uuid) => [uuid, supervisor.run(uuid)]));
  return ({ uuid, instance }) => supervisor.run(uuid) ?? (instance === null ? undefined : before.get(uuid));
}
