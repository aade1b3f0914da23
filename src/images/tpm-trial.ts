/** A capture of a guest with a TPM is tried before it counts: a TPM that has failed goes into it without a complaint, and never comes out again. */
import { StasisError } from '../errors.ts';
import type { Host } from '../guests/host.ts';
import type { OperationHandle } from '../operations/procedure.ts';
import type { MemoryFile } from '../qemu/memory/memory-file.ts';
import { readTpmState, tryTpmState } from '../qemu/tpm-state.ts';

/**
 * Makes a TPM of what was captured, and ends it again.
 * @param trial the instance that it is meanwhile; who calls discards it after a crash
 * @throws StasisError `not-capturable` when it doesn't live
 */
export async function refuseFailedTpm(
  { supervisor }: Host,
  trial: string,
  capture: { readonly path: string; readonly memory: MemoryFile },
  { guestName, signal }: OperationHandle,
): Promise<void> {
  try {
    const socket = await supervisor.launchTpm(trial, signal);
    const error = await tryTpmState(socket, await readTpmState(capture.path, capture.memory), signal);
    if (error === undefined) return;
    throw new StasisError(
      'not-capturable',
      `the TPM of guest ${guestName} has failed (error 0x${error.toString(16)}), most likely since its disk was full: with it the guest could not be restored. Reset the guest, or shut it down and start it, and save it again`,
      { guest: guestName, details: { error } },
    );
  } finally {
    await supervisor.discard(trial);
  }
}
