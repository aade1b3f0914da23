/**
 * Ending all guests for a shutdown of the host, within a budget of time. Each guest's part is an operation of its own, which
 * survives whatever happens to this one: interrupted, it may simply be begun again. Its commit is the mark of a clean shutdown.
 */
import { lastBoot, markShutdown, settleBoot } from '../catalog/host-boots.ts';
import { insertSaveRun } from '../catalog/save-runs.ts';
import { StasisError } from '../errors.ts';
import type { Host } from '../guests/host.ts';
import type { OperationEngine } from '../operations/engine.ts';
import type { OperationHandle, Procedure, Subject } from '../operations/procedure.ts';
import { EndOfGuests } from './end-of-guests.ts';
import type { Descent } from './ladder.ts';
import { survey, type Survey } from './survey.ts';

/** Whom an operation on the whole host is about: nobody that a guest could be called. */
export const HOST: Subject = { guest: null, guestName: '(host)', image: null };

interface SaveAllPlan {
  /** null: as long as it takes */
  readonly budgetMs: number | null;
}

export function saveAllProcedure(
  host: Host,
  engine: OperationEngine,
): Procedure<{ budgetSeconds?: number }, SaveAllPlan> {
  return {
    name: 'save-all',
    cancellable: true,
    plan: ({ budgetSeconds }) =>
      Promise.resolve({ budgetMs: budgetSeconds === undefined ? null : budgetSeconds * 1000 }),

    async run(plan, operation) {
      const beganMs = performance.now();
      const budgetMs = plan.budgetMs ?? Infinity;
      const found = await operation.step('look', () => survey(host, budgetMs));
      for (const { outcome } of found.leftAlone) await operation.outcome(outcome);
      const end = new EndOfGuests({ host, engine, operation, found, budgetMs, beganMs });
      const ended = await operation.step('end-guests', () => end.run());
      await operation.commit(async (transaction) => {
        const boot = await lastBoot(transaction);
        if (boot === undefined) throw new StasisError('internal', 'the catalog knows of no boot of the host');
        const at = new Date().toISOString();
        await markShutdown(transaction, boot.id, { shutdownAt: at, ...shutdownOf(found, ended) });
        // What was still to be started for this boot is not any more.
        await settleBoot(transaction, boot.id, boot.settledAt ?? at);
        if (end.written !== null) await insertSaveRun(transaction, { at, ...end.written });
      });
    },

    undo: () => Promise.resolve(),
    finish: (_plan, operation) => Promise.resolve(failureOf(operation)),
  };
}

/** A host that shuts down while it still starts its guests stops starting them. */
export async function makeWay(engine: OperationEngine): Promise<void> {
  const holder = engine.holderOf(HOST.guestName);
  if (holder?.record.kind !== 'restore-all') return;
  if (holder.cancellable) await engine.cancel(holder.record.id);
  await engine.whenEnded(holder.record.id);
}

/** Said when a guest was not ended as its policy says, although the shutdown as such came to its end. */
function failureOf(operation: OperationHandle): StasisError | undefined {
  const failed = operation.outcomes.filter(({ outcome }) => outcome === 'failed');
  if (failed.length === 0) return undefined;
  return new StasisError(
    'capture-failed',
    `not ended as their policies say:\n${failed.map(({ name, message }) => `${name}: ${message}`).join('\n')}`,
    { details: { guests: operation.outcomes } },
  );
}

/** What the next boot is to know of it. */
function shutdownOf({ leftAlone }: Survey, ended: readonly Descent[]) {
  const all = [...ended, ...leftAlone].map(({ outcome }) => outcome);
  const isClean =
    ended.every(({ isRunning }) => !isRunning) &&
    leftAlone.every(({ outcome }) => outcome.outcome !== 'failed');
  const left = leftAlone.filter(({ isRunning }) => isRunning).map(({ guest }) => guest);
  return {
    shutdownClean: isClean ? (1 as const) : (0 as const),
    shutdownLeft: JSON.stringify(left),
    shutdownOutcomes: JSON.stringify(all),
  };
}
