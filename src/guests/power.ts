/** The short procedures: what a person does at a machine's buttons. */
import { getGuestByUuid } from '../catalog/guests.ts';
import { messageOf, StasisError } from '../errors.ts';
import type { OperationHandle, Procedure, Subject } from '../operations/procedure.ts';
import { AGENT_BUDGET_MS, contactAgent } from './agent.ts';
import { setClock, type Finding } from './clock.ts';
import { storedDefinition } from './definition.ts';
import { letGo } from './frozen.ts';
import type { Host } from './host.ts';

interface PowerPlan {
  readonly guest: string;
}

/**
 * What can be done again without harm is committed first and done after: a crash between the two does it then. A button that
 * came to nothing, since QEMU has ended or doesn't answer, leaves nothing to settle: `stop` must be possible after it.
 */
function button<Args>(
  name: string,
  host: Host,
  press: (plan: PowerPlan, operation: OperationHandle) => Promise<void>,
): Procedure<Args, PowerPlan> {
  return {
    ...simple(name, host, press),
    async plan(_args, subject) {
      const plan = await planFor(host, subject);
      host.supervisor.get(plan.guest, subject.guestName);
      return plan;
    },
    async finish(plan, operation) {
      try {
        await operation.step(name, () => press(plan, operation));
        return undefined;
      } catch (error) {
        if (!(error instanceof StasisError)) throw error;
        await host.supervisor.findAlive(plan.guest);
        return error.about({ guest: operation.guestName });
      }
    },
  };
}

/** The same for what must be done, whatever is in its way. */
function simple<Args>(
  name: string,
  host: Host,
  act: (plan: PowerPlan, operation: OperationHandle) => Promise<void>,
): Procedure<Args, PowerPlan> {
  return {
    name,
    cancellable: false,
    plan: (_args, subject) => planFor(host, subject),
    run: (_plan, operation) => operation.commit(() => Promise.resolve()),
    undo: () => Promise.resolve(),
    finish: (plan, operation) => operation.step(name, () => act(plan, operation)),
  };
}

async function planFor(host: Host, subject: Subject): Promise<PowerPlan> {
  const guest = await getGuestByUuid(host.catalog, subject.guest ?? subject.guestName);
  return { guest: guest.uuid };
}

/** Pulls the plug. Of a stopped guest: nothing; of a crashed one: the crash is acknowledged. */
export function stopProcedure(host: Host): Procedure<unknown, PowerPlan> {
  return simple('stop', host, (plan) => host.supervisor.end(plan.guest));
}

export function pauseProcedure(host: Host): Procedure<unknown, PowerPlan> {
  return button('pause', host, async (plan, operation) => {
    await host.supervisor.pause(plan.guest, operation.guestName);
  });
}

/** The guest's clock stood still as well. Where its agent can set it, it is right again. */
export function resumeProcedure(host: Host): Procedure<unknown, PowerPlan> {
  return button('resume', host, async (plan, operation) => {
    await letGo(host, plan.guest, operation);
    const { agent } = storedDefinition(await getGuestByUuid(host.catalog, plan.guest));
    if (agent) await operation.outcome({ name: 'clock', ...(await clockFinding(host, plan, operation)) });
  });
}

/** Nothing of it takes back that the guest runs. */
async function clockFinding(host: Host, { guest }: PowerPlan, operation: OperationHandle): Promise<Finding> {
  const process = host.supervisor.get(guest, operation.guestName);
  try {
    await using agent = await contactAgent(process, { budgetMs: AGENT_BUDGET_MS });
    return await setClock(agent, process.qmp);
  } catch (error) {
    return { outcome: 'failed', message: messageOf(error) };
  }
}

/** The reset button: memory is lost, disks are as they are. */
export function resetProcedure(host: Host): Procedure<unknown, PowerPlan> {
  return button('reset', host, async (plan, operation) => {
    await host.supervisor.get(plan.guest, operation.guestName).qmp.execute('system_reset');
  });
}

interface ShutdownPlan extends PowerPlan {
  readonly timeoutSeconds: number;
}

const DEFAULT_TIMEOUT_SECONDS = 120;

/** Presses the power button and waits until the guest has shut itself down; a guest that doesn't runs on. */
export function shutdownProcedure(host: Host): Procedure<{ timeoutSeconds?: number }, ShutdownPlan> {
  return {
    name: 'shutdown',
    cancellable: true,
    async plan(args, subject) {
      const plan = await planFor(host, subject);
      host.supervisor.get(plan.guest, subject.guestName);
      return { ...plan, timeoutSeconds: args.timeoutSeconds ?? DEFAULT_TIMEOUT_SECONDS };
    },
    async run(plan, operation) {
      await operation.step('press-power-button', () => shutDown(host, plan, operation));
      await operation.commit(() => Promise.resolve());
    },
    undo: () => Promise.resolve(),
    finish: () => Promise.resolve(),
  };
}

async function shutDown(host: Host, plan: ShutdownPlan, operation: OperationHandle): Promise<void> {
  const { guest, timeoutSeconds } = plan;
  const { guestName } = operation;
  const { qmp } = host.supervisor.get(guest, guestName);
  const timeout = AbortSignal.timeout(Math.ceil(timeoutSeconds * 1000));
  const signal = AbortSignal.any([timeout, operation.signal]);
  try {
    const { status } = await qmp.execute('query-status', undefined, { signal });
    // A paused guest can't react to its power button.
    if (status === 'paused') await letGo(host, guest, operation);
    await qmp.execute('system_powerdown', undefined, { signal });
    await host.supervisor.whenEnded(guest, signal);
  } catch (error) {
    if (!timeout.aborted) throw error;
    throw new StasisError(
      'timeout',
      `guest ${guestName} did not shut down within ${timeoutSeconds} s and still runs; give it more with --timeout, or \`stasis stop ${guestName}\``,
      { guest: guestName, cause: error },
    );
  }
}
