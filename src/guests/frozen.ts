/**
 * Guests whose file systems are frozen, and the promise that they don't stay so. The catalog knows of each from before
 * its agent was asked to freeze until the agent has said that it has thawed: whatever failed, was cancelled or died in
 * between, the guest is thawed by the next who could, which is the save itself, its undo, the next daemon, or whoever lets the guest
 * run that was saved or restored in that state.
 */
import { getGuestByUuid, listGuests, setFrozen } from '../catalog/guests.ts';
import type { Outcome } from '../api/schemas.ts';
import { messageOf, StasisError } from '../errors.ts';
import type { OperationHandle } from '../operations/procedure.ts';
import { isRunning } from '../qemu/process/run-state.ts';
import { contactAgent } from './agent.ts';
import type { Host } from './host.ts';

/** An agent that is still busy with the freezing answers when it is done with that. */
const THAW_BUDGET_MS = 15_000;

/** Lets a guest run that stands still, and thaws it if it is frozen. @throws StasisError `invalid-state` when it has no process */
export async function letGo(host: Host, uuid: string, operation: OperationHandle): Promise<void> {
  await host.supervisor.resume(uuid, operation.guestName);
  const outcome = await thawIfFrozen(host, uuid);
  if (outcome !== undefined) await operation.outcome(outcome);
}

/**
 * Thaws a guest that is or may be frozen, if it runs. Never throws for what the guest doesn't do: it stays recorded as
 * frozen, and is tried again when there is occasion.
 * @returns undefined when there was nothing to do
 */
export async function thawIfFrozen(host: Host, uuid: string): Promise<Outcome | undefined> {
  const { frozen } = await getGuestByUuid(host.catalog, uuid);
  const process = host.supervisor.find(uuid);
  if (frozen === 0 || process === undefined || process.qmp.isClosed) return undefined;
  const giveUpAt = performance.now() + THAW_BUDGET_MS;
  for (;;) {
    try {
      if (!(await isRunning(process.qmp))) return undefined;
      await using agent = await contactAgent(process, { budgetMs: giveUpAt - performance.now() });
      const count = await agent.thaw();
      await setFrozen(host.catalog, uuid, false);
      return { name: 'thaw', outcome: 'done', message: `file systems thawed by the guest agent: ${count}` };
    } catch (error) {
      const { code } = StasisError.from(error);
      if (code !== 'timeout' && code !== 'qemu-failed') throw error;
      if (code === 'qemu-failed' || performance.now() > giveUpAt)
        return { name: 'thaw', outcome: 'failed', message: notThawed(messageOf(error)) };
    }
  }
}

/** Guests that a former daemon left frozen. Doesn't wait for them: an agent may take its time. */
export async function thawAll(host: Host): Promise<void> {
  for (const { uuid, name, frozen } of await listGuests(host.catalog)) {
    if (frozen === 0) continue;
    thawIfFrozen(host, uuid).then(
      (outcome) => outcome && host.log.info({ guest: name, ...outcome }, 'a guest was left frozen'),
      (error: unknown) => host.log.error({ err: error, guest: name }, 'a frozen guest could not be thawed'),
    );
  }
}

function notThawed(reason: string): string {
  return `the guest's file systems may still be frozen: ${reason}; it is tried again when the guest is resumed or the daemon starts, or thaw them inside the guest (Linux: \`fsfreeze --unfreeze\`)`;
}
