/** Letting a guest leave Stasis as it came: what it wrote goes back into the disks the user brought. */
import { rm } from 'node:fs/promises';
import { deleteGuest, getGuestByUuid, hasGuest } from '../catalog/guests.ts';
import { getImageById, listImages } from '../catalog/images.ts';
import { deleteHeads, deleteLayer } from '../catalog/layers.ts';
import { StasisError } from '../errors.ts';
import { checkSeals, guestDirectory, headIds } from '../guests/disks.ts';
import type { Host } from '../guests/host.ts';
import type { Procedure } from '../operations/procedure.ts';
import { collect } from './collect.ts';
import { dropImage, forget } from './delete.ts';

interface UndefinePlan {
  readonly guest: string;
  readonly name: string;
  readonly images: readonly string[];
}

export function undefineProcedure(host: Host): Procedure<{ deleteImages?: boolean }, UndefinePlan> {
  const { catalog } = host;
  return {
    name: 'undefine',
    cancellable: false,

    async plan(args, subject) {
      const guest = await getGuestByUuid(catalog, subject.guest ?? subject.guestName);
      if (guest.instance !== null) {
        throw new StasisError(
          'invalid-state',
          `guest ${guest.name} runs; \`stasis shutdown ${guest.name}\` or \`stasis stop ${guest.name}\` first`,
        );
      }
      const images = await listImages(catalog, guest.uuid);
      if (images.length > 0 && args.deleteImages !== true) {
        throw new StasisError(
          'has-images',
          `guest ${guest.name} has ${images.length} save image(s), which would be lost; delete them first, or give --delete-images`,
          {
            details: { images: images.map((image) => image.name) },
          },
        );
      }
      await checkSeals(catalog, await headIds(catalog, guest.uuid));
      return { guest: guest.uuid, name: guest.name, images: images.map((image) => image.id) };
    },

    async run(plan, operation) {
      await operation.commit(async (transaction) => {
        for (const id of plan.images) await dropImage(transaction, await getImageById(transaction, id));
      });
    },

    undo: () => Promise.resolve(),

    async finish(plan, operation) {
      if (!(await hasGuest(catalog, plan.guest))) return;
      for (const id of plan.images) await operation.step('remove-memory', () => forget(host, plan.guest, id));
      await collect(host, plan.guest, operation);
      await operation.step('forget-guest', async () => {
        await rm(guestDirectory(host.paths.data, plan.guest).root, { recursive: true, force: true });
        await catalog.transaction().execute(async (transaction) => {
          const roots = await headIds(transaction, plan.guest);
          await deleteHeads(transaction, plan.guest);
          for (const { layer } of roots) await deleteLayer(transaction, layer);
          await deleteGuest(transaction, plan.guest);
        });
      });
      await operation.publish({
        type: 'guest',
        action: 'undefined',
        guest: plan.name,
        message: `${plan.name} is no longer known; its disks are as it left them`,
      });
    },
  };
}
