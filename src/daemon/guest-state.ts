import type { GuestState } from '../api/schemas.ts';
import type { GuestRecord } from '../catalog/guests.ts';
import type { OperationRecord } from '../catalog/operations.ts';

/** What a guest is doing. @param operation what is under way with it */
export function guestState(
  record: Pick<GuestRecord, 'uuid' | 'instance' | 'crashed'>,
  run: 'running' | 'paused' | undefined,
  operation: OperationRecord | undefined,
): GuestState {
  if (operation?.guest !== record.uuid) operation = undefined; // held for another guest's sake
  if (operation?.procedure === 'save') return 'saving';
  if (operation?.procedure === 'restore') return 'restoring';
  if (run !== undefined) return run;
  // A process that doesn't answer is there all the same.
  if (record.instance !== null) return 'paused';
  return record.crashed === 1 ? 'crashed' : 'stopped';
}
