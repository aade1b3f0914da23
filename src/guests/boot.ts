/** Starting a guest from its disks: the procedure behind `start`, when no image is restored. */
import { getGuestByUuid, setInstance, setTpm } from '../catalog/guests.ts';
import { rootsOfGuest } from '../catalog/layers.ts';
import { StasisError } from '../errors.ts';
import { newId } from '../ids.ts';
import type { OperationHandle, Procedure, Subject } from '../operations/procedure.ts';
import type { PlannedLayer } from '../storage/driver.ts';
import { isWritable } from '../storage/layers.ts';
import { commandLine, hasBridge } from './command-line.ts';
import { storedDefinition } from './definition.ts';
import {
  checkSeals,
  headIds,
  installHeads,
  loadForest,
  machineDisks,
  makeLayers,
  planHeads,
  removeLayers,
  seal,
  settleLayers,
  unseal,
  type DiskLayerId,
} from './disks.ts';
import { letGo } from './frozen.ts';
import { refuseWithoutHugePages } from './host-memory.ts';
import type { Host } from './host.ts';
import { removeOldTpms, tpmDirectory } from './tpm.ts';

interface BootPlan {
  readonly guest: string;
  readonly instance: string;
  readonly heads: readonly PlannedLayer[];
}

/** Boots a stopped guest. A head that an image pins is never written to: a fresh one is made from it first. */
export function bootProcedure(host: Host): Procedure<Record<string, never>, BootPlan> {
  const { catalog, supervisor } = host;
  return {
    name: 'boot',
    cancellable: true,

    async plan(_args, subject: Subject) {
      const guest = await getGuestByUuid(catalog, subject.guest ?? subject.guestName);
      if (guest.instance !== null) {
        throw new StasisError('invalid-state', `guest ${guest.name} already runs`, { guest: guest.name });
      }
      const definition = storedDefinition(guest);
      await refuseWithoutHugePages(guest.name, definition);
      const heads = await headIds(catalog, guest.uuid);
      await checkSeals(host, heads);
      const forest = await loadForest(host, await rootsOfGuest(catalog, guest.uuid));
      const held = heads.filter(({ layer }) => !isWritable(forest, layer));
      return {
        guest: guest.uuid,
        instance: newId(),
        heads: await planHeads(host, { definition, data: host.paths.data }, held),
      };
    },

    async run(plan, operation) {
      const guest = await getGuestByUuid(catalog, plan.guest);
      const heads = await headIds(catalog, plan.guest);
      await operation.step('lay-heads', () => makeLayers(host, plan.heads, operation.signal));
      await operation.step('launch', async () => {
        await unseal(catalog, writtenDirectly(heads, plan.heads));
        const disks = await machineDisks(catalog, heads, plan.heads);
        const definition = storedDefinition(guest);
        await host.ownership.letStart(definition, disks);
        const tpm = tpmDirectory(host, definition, guest.tpm ?? plan.instance);
        const { path } = await host.builds.get(definition.qemu.build);
        const machine = {
          ...{ binary: path, args: commandLine(definition, disks), tpmDirectory: tpm },
          startsHelper: hasBridge(definition),
        };
        await Promise.all([
          supervisor.launch(plan.instance, machine, operation.signal),
          settleLayers(host, plan.heads),
        ]);
      });
      await operation.commit(async (transaction) => {
        await installHeads(transaction, plan.guest, plan.heads);
        await setInstance(transaction, plan.guest, plan.instance);
        await setTpm(transaction, plan.guest, guest.tpm ?? plan.instance);
      });
    },

    async undo(plan) {
      await supervisor.discard(plan.instance);
      await removeOldTpms(host, plan.guest);
      await removeLayers(host, plan.heads);
      await seal(host, writtenDirectly(await headIds(catalog, plan.guest), plan.heads));
    },

    async finish(plan, operation) {
      return operation.step('run', () => letRun(host, plan.guest, plan.instance, false, operation));
    },
  };
}

/** Heads that get no new one over them. */
function writtenDirectly(heads: readonly DiskLayerId[], planned: readonly PlannedLayer[]): string[] {
  return heads.filter(({ disk }) => !planned.some((head) => head.disk === disk)).map((head) => head.layer);
}

/**
 * A process that has been committed as a guest's becomes it and runs, thawed if it was saved frozen. Repeatable: after a crash the process is found again.
 * @returns `guest-crashed` when the process is gone, which is recorded
 */
export async function letRun(
  host: Host,
  uuid: string,
  instance: string,
  paused: boolean,
  operation: OperationHandle,
): Promise<StasisError | undefined> {
  const process = await host.supervisor.attach(instance, uuid);
  if (process === undefined) {
    await host.supervisor.end(uuid, 'its QEMU process ended before the guest ran');
    return new StasisError('guest-crashed', `QEMU ended before guest ${operation.guestName} ran`, {
      guest: operation.guestName,
    });
  }
  await host.supervisor.adopt(uuid, instance, process);
  if (!paused) await letGo(host, uuid, operation);
  return undefined;
}
