/** What a host policy does to a guest: an operation of the guest's own, begun when it is free, and given only so much time. */
import { StasisError } from '../errors.ts';
import type { OperationEngine } from '../operations/engine.ts';
import type { Submission } from '../operations/operation.ts';
import type { Procedure } from '../operations/procedure.ts';
import { waitFor } from '../qemu/wait.ts';

/** A cancelled operation undoes itself; when its QEMU doesn't answer that can take for ever. */
const UNDO_MS = 5_000;

export interface Limits {
  /** gives up: its reason is the error */
  readonly signal: AbortSignal;
  /** how long its undoing is waited for when it gives up; 5 s unless told */
  readonly undoMs?: () => number;
  /** told the operation's id */
  readonly onBegun?: (id: string) => void;
}

/**
 * Runs a procedure on a guest to its end, after whatever holds the guest. When it is to give up it cancels, unless the work counts
 * already: what then follows goes on by itself.
 * @throws the signal's reason; whatever the operation fails with
 */
export async function runOnGuest<Args, Plan>(
  engine: OperationEngine,
  procedure: Procedure<Args, Plan>,
  submission: Submission<Args>,
  { signal, onBegun, undoMs = () => UNDO_MS }: Limits,
): Promise<void> {
  const { id, settled } = await submitWhenFree(engine, procedure, submission, signal);
  onBegun?.(id);
  try {
    await waitFor(`${submission.kind} of ${submission.subject.guestName}`, settled, { signal });
  } catch (error) {
    if (!signal.aborted) throw error;
    if (engine.live(id)?.record.committed === 1) return;
    await withdraw(engine, id, undoMs());
    throw error;
  }
}

/** Begins it after whatever holds the guest. @throws the signal's reason, which only ends the waiting */
export async function submitWhenFree<Args, Plan>(
  engine: OperationEngine,
  procedure: Procedure<Args, Plan>,
  submission: Submission<Args>,
  signal: AbortSignal,
): Promise<{ id: string; settled: Promise<void> }> {
  for (;;) {
    try {
      return await engine.submit(procedure, submission);
    } catch (error) {
      const holder =
        error instanceof StasisError && error.code === 'busy' ? error.details?.['operation'] : null;
      if (typeof holder !== 'string') throw error;
      await engine.whenEnded(holder, signal);
    }
  }
}

/** Cancels and waits a moment for it to be undone. */
async function withdraw(engine: OperationEngine, id: string, undoMs: number): Promise<void> {
  try {
    await engine.cancel(id);
    await engine.whenEnded(id, AbortSignal.timeout(Math.ceil(undoMs)));
  } catch (error) {
    // It has ended meanwhile, or it hangs, which whoever needs the guest next will find.
    if (error instanceof StasisError && error.code === 'invalid-state') return;
    if (error instanceof DOMException && error.name === 'TimeoutError') return;
    throw error;
  }
}
