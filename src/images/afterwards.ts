/**
 * What a restore leaves wrong around and inside the guest, put right as far as that is possible from outside. Nothing
 * of it can undo a restore: each point has its outcome, which the operation keeps.
 */
import type { Outcome } from '../api/schemas.ts';
import { messageOf } from '../errors.ts';
import type { Definition } from '../guests/definition.ts';
import type { Host } from '../guests/host.ts';
import type { OperationHandle } from '../operations/procedure.ts';
import type { QmpClient } from '../qemu/qmp.ts';

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
  await operation.outcome(await attempt('clock', restored, () => setClock(restored)));
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
  const network =
    addresses.length === 0
      ? ''
      : `, its network address (${addresses.join(', ')}) and IP address: on a network that ${savedDefinition.name} is on too, the two are in each other's way`;
  return {
    name: 'identity',
    outcome: 'skipped',
    message: `inside, it is ${savedDefinition.name} still: hostname, machine-id, host keys${network}. Change them in the guest; a shutdown and start of ${definition.name} gives it the addresses and the UUID of its own definition`,
  };
}

/** Switches on the way learn where the guest's addresses are now. */
async function announce(qmp: QmpClient): Promise<Omit<Outcome, 'name'>> {
  await qmp.execute('announce-self', { initial: 50, max: 550, rounds: 5, step: 100 });
  return { outcome: 'done', message: 'its addresses were announced' };
}

/** The virtual hardware clock follows the host's; the clock of the system in the guest stood still meanwhile. */
function setClock({ savedAt }: Restored): Promise<Omit<Outcome, 'name'>> {
  const behindSeconds = Math.round((Date.now() - Date.parse(savedAt)) / 1000);
  return Promise.resolve({
    outcome: 'skipped',
    message: `no guest agent: the guest's clock is about ${behindSeconds} s behind until it synchronizes (NTP) or reads its hardware clock (\`hwclock --hctosys\`)`,
  });
}

async function attempt(
  name: string,
  { paused }: Restored,
  work: () => Promise<Omit<Outcome, 'name'>>,
): Promise<Outcome> {
  if (paused) return { name, outcome: 'skipped', message: 'the guest is paused' };
  try {
    return { name, ...(await work()) };
  } catch (error) {
    return { name, outcome: 'failed', message: messageOf(error) };
  }
}
