/**
 * What a restore leaves wrong around and inside the guest, put right as far as that is possible from outside. Nothing
 * of it can undo a restore: each point has its outcome, which the operation keeps.
 */
import type { Outcome } from '../api/schemas.ts';
import { messageOf } from '../errors.ts';
import { AGENT_BUDGET_MS, contactAgent } from '../guests/agent.ts';
import type { Definition } from '../guests/definition.ts';
import type { Host } from '../guests/host.ts';
import type { OperationHandle } from '../operations/procedure.ts';
import type { GuestAgent } from '../qemu/guest-agent.ts';
import type { QemuProcess } from '../qemu/process/process.ts';
import type { QmpClient } from '../qemu/qmp/client.ts';
import { howFarBehind, setClock, type Finding } from '../guests/clock.ts';

const PAUSED = { outcome: 'skipped', message: 'the guest is paused' } as const;

export interface Restored {
  readonly uuid: string;
  readonly definition: Definition;
  /** what the guest was when it was saved */
  readonly savedDefinition: Definition;
  readonly savedAt: string;
  readonly paused: boolean;
}

/** Puts a guest right that has just been let run. Never throws for what the guest can't do. */
export async function putRight(host: Host, restored: Restored, operation: OperationHandle): Promise<void> {
  const process = host.supervisor.find(restored.uuid);
  if (process === undefined) return;
  await operation.outcome(generation(restored));
  if (restored.definition.clone !== undefined) await operation.outcome(sameAsBefore(restored));
  if (restored.definition.networks.length > 0)
    await operation.outcome(await attempt('network', restored, () => announce(process.qmp)));
  const { agent: found, ...finding } = await findAgent(process, restored);
  await using agent = found;
  await operation.outcome({ name: 'agent', ...finding });
  await operation.outcome(
    await attempt('clock', restored, () =>
      agent === undefined ? Promise.resolve(howFarBehind(restored.savedAt)) : setClock(agent, process.qmp),
    ),
  );
}

async function findAgent(
  process: QemuProcess,
  { definition, paused }: Restored,
): Promise<Finding & { agent?: GuestAgent }> {
  if (!definition.agent) return { outcome: 'skipped', message: 'the guest was defined without an agent' };
  if (paused) return PAUSED;
  try {
    const agent = await contactAgent(process, { budgetMs: AGENT_BUDGET_MS });
    return { outcome: 'done', message: 'connected again', agent };
  } catch (error) {
    return { outcome: 'failed', message: messageOf(error) };
  }
}

function generation({ definition, savedDefinition }: Restored): Outcome {
  const name = 'generation';
  if (definition.generation === undefined)
    return { name, outcome: 'skipped', message: 'the guest was defined without a generation id' };
  return definition.generation === savedDefinition.generation
    ? { name, outcome: 'skipped', message: 'the guest goes on where it was saved, and only there' }
    : {
        name,
        outcome: 'done',
        message: `new generation id ${definition.generation}: the guest reseeds its randomness`,
      };
}

/** What a clone can't be rid of from outside. */
function sameAsBefore({ definition, savedDefinition }: Restored): Outcome {
  const addresses = savedDefinition.networks.map(({ mac }) => mac);
  const tpm = definition.tpm === true ? ', the keys of its TPM' : '';
  const network =
    addresses.length === 0
      ? ''
      : `, its network address (${addresses.join(', ')}) and IP address: on a network that ${savedDefinition.name} is on too, the two are in each other's way`;
  return {
    name: 'identity',
    outcome: 'skipped',
    message: `inside, it is ${savedDefinition.name} still: hostname, machine-id, host keys${tpm}${network}. Change them in the guest; a shutdown and start of ${definition.name} gives it the addresses and the UUID of its own definition`,
  };
}

/** Switches on the way learn where the guest's addresses are now. */
async function announce(qmp: QmpClient): Promise<Finding> {
  await qmp.execute('announce-self', { initial: 50, max: 550, rounds: 5, step: 100 });
  return { outcome: 'done', message: 'its addresses were announced' };
}

async function attempt(name: string, { paused }: Restored, work: () => Promise<Finding>): Promise<Outcome> {
  if (paused) return { name, ...PAUSED };
  try {
    return { name, ...(await work()) };
  } catch (error) {
    return { name, outcome: 'failed', message: messageOf(error) };
  }
}
