/** Deleting an image, at any place in the tree, of a guest in any state. */
import { existsSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { DEFAULT_IMAGE } from '../api/constants.ts';
import type { Catalog } from '../catalog/database.ts';
import { getGuestByUuid } from '../catalog/guests.ts';
import {
  adoptChildren,
  deleteImage,
  findImageById,
  updateImage,
  type ImageRecord,
} from '../catalog/images.ts';
import { deletePins } from '../catalog/layers.ts';
import { guestDirectory } from '../guests/disks.ts';
import type { Host } from '../guests/host.ts';
import type { OperationHandle, Procedure } from '../operations/procedure.ts';
import { syncPath } from '../storage/durable.ts';
import { collect } from './collect.ts';
import { MEMORY_FILE } from './manifest.ts';
import { requireImage } from './names.ts';
import { refuseProtected } from './protect.ts';

interface DeletePlan {
  readonly guest: string;
  readonly image: string;
  readonly name: string;
}

/** The image no longer counts: it is not listed and holds no layer. Part of a commit. */
export async function dropImage(transaction: Catalog, image: ImageRecord): Promise<void> {
  await updateImage(transaction, image.id, { state: 'deleting' });
  await deletePins(transaction, image.id);
}

/**
 * Removes what is left of a dropped image; its children in the tree become its parent's. A guest that was restored from
 * it lazily gets the rest of its memory first. Repeatable.
 */
export async function forget(host: Host, guest: string, id: string): Promise<void> {
  const directory = join(guestDirectory(host.paths.data, guest).images, id);
  await host.supervisor.memoryArrivedFrom(directory);
  await removeDirectory(directory);
  const image = await findImageById(host.catalog, id);
  if (image === undefined) return;
  await host.catalog.transaction().execute(async (transaction) => {
    await adoptChildren(transaction, id, image.parent);
    await deleteImage(transaction, id);
  });
  const { name } = await getGuestByUuid(host.catalog, guest);
  await host.events.publish({
    type: 'image',
    action: 'deleted',
    guest: name,
    image: image.name,
    message: `image ${image.name} of ${name} deleted`,
  });
}

/**
 * Also on a full disk, and while its record is being written. For good before any layer changes that the image pinned: who has only
 * the records would take it for an image as long as it is there.
 */
async function removeDirectory(directory: string): Promise<void> {
  await rm(directory, { recursive: true, force: true, maxRetries: 5 });
  if (existsSync(dirname(directory))) await syncPath(dirname(directory));
}

export function deleteProcedure(host: Host): Procedure<{ name?: string }, DeletePlan> {
  return {
    name: 'delete',
    cancellable: false,
    async plan(args, subject) {
      const guest = await getGuestByUuid(host.catalog, subject.guest ?? subject.guestName);
      const image = await requireImage(host.catalog, guest, args.name ?? DEFAULT_IMAGE);
      refuseProtected(image, guest.name, 'deleted');
      return { guest: guest.uuid, image: image.id, name: image.name };
    },
    async run(plan, operation) {
      await operation.commit(async (transaction) => {
        const image = await findImageById(transaction, plan.image);
        if (image !== undefined) await dropImage(transaction, image);
      });
    },
    undo: () => Promise.resolve(),
    async finish(plan, operation) {
      await tellWhoKeepsMemory(host, plan, operation);
      await operation.step('remove-memory', () => forget(host, plan.guest, plan.image));
      await tellWhoReads(host, plan, operation);
      await collect(host, plan.guest, operation);
    },
  };
}

/** A guest goes on with the file of its memory when that is removed; only the space comes back later. */
async function tellWhoKeepsMemory(host: Host, plan: DeletePlan, operation: OperationHandle): Promise<void> {
  const file = join(guestDirectory(host.paths.data, plan.guest).images, plan.image, MEMORY_FILE);
  const users = await Promise.all(
    host.supervisor.mappedFrom(file).map(async (uuid) => (await getGuestByUuid(host.catalog, uuid)).name),
  );
  if (users.length > 0)
    await operation.outcome({
      name: 'space',
      outcome: 'skipped',
      message: `the memory of ${users.toSorted().join(', ')} is mapped from this image: its memory file leaves the disk when ${users.length === 1 ? 'it stops' : 'they stop'}`,
    });
}

/** A reader goes on with the layers of a deleted image; they go when it has ended. */
async function tellWhoReads(host: Host, plan: DeletePlan, operation: OperationHandle): Promise<void> {
  const readers = await host.readers.list();
  if (!readers.some(({ guest, image }) => guest === plan.guest && image === plan.name)) return;
  await operation.outcome({
    name: 'layers',
    outcome: 'skipped',
    message: 'somebody reads a disk of this image: its layers leave the disk when that has ended',
  });
}
