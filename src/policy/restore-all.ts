/**
 * Starting the guests when the host has booted, or when somebody asks: one after the other in their order, each as its own
 * policy says. Each guest's part is an operation of its own. Interrupted at a boot, the next daemon goes on with the others.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { Outcome } from '../api/schemas.ts';
import { hasGuest, listGuests } from '../catalog/guests.ts';
import { lastBoot, setBootOutcomes, settleBoot } from '../catalog/host-boots.ts';
import { StasisError } from '../errors.ts';
import { policyOf } from '../guests/policy.ts';
import type { Host } from '../guests/host.ts';
import type { OperationEngine } from '../operations/engine.ts';
import type { OperationHandle, Procedure } from '../operations/procedure.ts';
import { fromStored } from '../stored.ts';
import { startGuest } from './start-guest.ts';

export interface RestoreAllArgs {
  /** the boot of the host that this is for; null: somebody asked for it */
  readonly boot: number | null;
}

interface RestoreAllPlan extends RestoreAllArgs {
  /** in their order */
  readonly guests: readonly { readonly uuid: string; readonly delaySeconds: number }[];
}

export function restoreAllProcedure(
  host: Host,
  engine: OperationEngine,
): Procedure<RestoreAllArgs, RestoreAllPlan> {
  const { catalog } = host;
  return {
    name: 'restore-all',
    cancellable: true,

    async plan({ boot }) {
      const done = boot === null ? [] : (await bootOutcomes(host)).map(({ name }) => name);
      const guests = (await listGuests(catalog))
        .filter(({ name }) => !done.includes(name))
        .map((guest) => ({ uuid: guest.uuid, ...policyOf(host, guest) }))
        // Who asks is told of those that stay stopped.
        .filter(({ onBoot }) => boot === null || onBoot !== 'none')
        .toSorted((a, b) => a.order - b.order)
        .map(({ uuid, delaySeconds }) => ({ uuid, delaySeconds }));
      return { boot, guests };
    },

    async run(plan, operation) {
      const { signal } = operation;
      for (const [index, { uuid, delaySeconds }] of plan.guests.entries()) {
        signal.throwIfAborted();
        if (!(await hasGuest(catalog, uuid)) || isLeaving(engine, uuid)) continue; // undefined meanwhile
        const { outcome, isStarted } = await operation.step('start-guest', () =>
          startGuest({ host, engine, signal, onDemand: plan.boot === null }, uuid),
        );
        await record(host, plan, operation, outcome);
        const isLast = index === plan.guests.length - 1;
        if (isStarted && !isLast && delaySeconds > 0) await delay(delaySeconds * 1000, undefined, { signal });
      }
      await operation.commit(async (transaction) => {
        if (plan.boot !== null) await settleBoot(transaction, plan.boot, new Date().toISOString());
      });
    },

    async undo(plan, operation) {
      // Called off by a person it is not taken up again; interrupted it is.
      if (plan.boot !== null && !operation.recovering)
        await settleBoot(catalog, plan.boot, new Date().toISOString());
    },
    finish: (_plan, operation) => Promise.resolve(failureOf(operation)),
  };
}

/** An undefine that the host's crash interrupted is finished beside this. */
function isLeaving(engine: OperationEngine, guest: string): boolean {
  return engine.holderOf(guest)?.record.kind === 'undefine';
}

async function record(
  host: Host,
  { boot }: RestoreAllPlan,
  operation: OperationHandle,
  outcome: Outcome,
): Promise<void> {
  await operation.outcome(outcome);
  if (boot !== null) {
    const others = (await bootOutcomes(host)).filter(({ name }) => name !== outcome.name);
    await setBootOutcomes(host.catalog, boot, JSON.stringify([...others, outcome]));
  }
  if (outcome.outcome === 'skipped') return;
  const failed = outcome.outcome === 'failed' ? ' failed' : '';
  await operation.publish({
    type: 'guest',
    action: `host-boot${failed.replace(' ', '-')}`,
    guest: outcome.name,
    message: `${outcome.name} for the host's boot${failed}: ${outcome.message}`,
  });
}

async function bootOutcomes(host: Host): Promise<Outcome[]> {
  return fromStored<Outcome[]>((await lastBoot(host.catalog))?.outcomes ?? '[]');
}

function failureOf(operation: OperationHandle): StasisError | undefined {
  const failed = operation.outcomes.filter(({ outcome }) => outcome === 'failed');
  if (failed.length === 0) return undefined;
  return new StasisError(
    'restore-failed',
    `not started as their policies say:\n${failed.map(({ name, message }) => `${name}: ${message}`).join('\n')}`,
    { details: { guests: operation.outcomes } },
  );
}
