/** Which of the host's QEMUs runs a guest. */
import { getGuestByUuid, setDefinition, type GuestRecord } from '../catalog/guests.ts';
import type { Procedure } from '../operations/procedure.ts';
import { qemuTypes } from '../qemu/build/device-types.ts';
import { resolveMachineType } from '../qemu/build/machine-types.ts';
import { checkDevices } from './check-devices.ts';
import { storedDefinition, type Definition } from './definition.ts';
import type { Host } from './host.ts';

interface Choice {
  /** null: the usual one */
  readonly build: string | null;
}

/**
 * Has a guest run by another QEMU from its next start or restore on.
 * @throws StasisError `unsupported` when there is no such build, or it can't make the guest's machine; `qemu-missing`, `qemu-too-old`
 */
export function qemuProcedure(host: Host): Procedure<Choice, Choice & { readonly guest: string }> {
  return {
    name: 'qemu',
    cancellable: false,

    async plan({ build }, subject) {
      const guest = await getGuestByUuid(host.catalog, subject.guest ?? subject.guestName);
      const definition = storedDefinition(guest);
      const binary = await host.builds.get(build ?? undefined);
      await resolveMachineType(binary, definition.machine);
      checkDevices(definition, await qemuTypes(binary));
      return { guest: guest.uuid, build };
    },

    run: ({ guest, build }, operation) =>
      operation.commit(async (transaction) => {
        const definition = storedDefinition(await getGuestByUuid(transaction, guest));
        await setDefinition(transaction, guest, JSON.stringify(runBy(definition, build ?? undefined)));
      }),

    undo: () => Promise.resolve(),
    finish: () => Promise.resolve(),
  };
}

/** A machine of an image's, run by the QEMU that its guest has now: that was decided about the guest since then. */
export function runAsNow(machine: Definition, guest: GuestRecord): Definition {
  return runBy(machine, storedDefinition(guest).qemu.build);
}

function runBy(definition: Definition, build: string | undefined): Definition {
  const { args } = definition.qemu;
  return { ...definition, qemu: build === undefined ? { args } : { build, args } };
}
