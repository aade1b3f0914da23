/** Letting a guest leave Stasis as it came: what it wrote goes back into the disks the user brought. */
import { deleteGuest, getGuestByUuid, hasGuest, listGuests, type GuestRecord } from '../catalog/guests.ts';
import { getImageById, listImages, type ImageRecord } from '../catalog/images.ts';
import { deleteHeads, deleteLayer, guestsOver, rootsOfGuest, treesOf } from '../catalog/layers.ts';
import { StasisError } from '../errors.ts';
import { storedDefinition, type Definition } from '../guests/definition.ts';
import { checkSeals, headIds, leaveDisks } from '../guests/disks.ts';
import type { Host } from '../guests/host.ts';
import { broughtFiles } from '../guests/ownership.ts';
import { removeGuestDirectory } from '../guests/tpm.ts';
import type { Procedure } from '../operations/procedure.ts';
import { collectTrees } from './collect.ts';
import { dropImage, forget } from './delete.ts';

interface UndefinePlan {
  readonly guest: string;
  readonly name: string;
  readonly images: readonly string[];
  /** its disks stand on those of another guest, and are gone with it */
  readonly isClone: boolean;
  readonly roots: readonly string[];
}

export function undefineProcedure(host: Host): Procedure<{ deleteImages?: boolean }, UndefinePlan> {
  const { catalog } = host;
  return {
    name: 'undefine',
    cancellable: false,
    finishesLong: true,

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
          `guest ${guest.name} has ${images.length === 1 ? 'a save image' : `${images.length} save images`}, which would be lost; \`stasis delete\` first, or give --delete-images`,
          {
            details: { images: images.map((image) => image.name) },
          },
        );
      }
      refuseWithProtected(guest, images);
      await refuseWithClones(host, guest);
      await refuseWithReaders(host, guest);
      await checkSeals(host, await headIds(catalog, guest.uuid));
      return {
        guest: guest.uuid,
        name: guest.name,
        images: images.map((image) => image.id),
        isClone: storedDefinition(guest).clone !== undefined,
        roots: await rootsOfGuest(catalog, guest.uuid),
      };
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
      if (plan.isClone) await deleteHeads(catalog, plan.guest);
      await collectTrees(host, plan.roots, operation);
      if (!plan.isClone) await checkBackInRoots(host, plan);
      await operation.step('forget-guest', async () => {
        const definition = storedDefinition(await getGuestByUuid(catalog, plan.guest));
        await leaveDisks(host, { definition, data: host.paths.data });
        if (!plan.isClone) await giveBackFiles(host, definition);
        await removeGuestDirectory(host.paths.data, plan.guest);
        await catalog.transaction().execute(async (transaction) => {
          await deleteHeads(transaction, plan.guest);
          if (!plan.isClone) for (const layer of plan.roots) await deleteLayer(transaction, layer);
          await deleteGuest(transaction, plan.guest);
        });
      });
      await operation.publish({
        type: 'guest',
        action: 'undefined',
        guest: plan.name,
        message: plan.isClone
          ? `${plan.name} is no longer known, and its disks are gone`
          : `${plan.name} is no longer known; its disks are as it left them`,
      });
    },
  };
}

/** What the user brought is the user's again, unless another guest reads it too. */
async function giveBackFiles({ catalog, ownership }: Host, definition: Definition): Promise<void> {
  const others = (await listGuests(catalog)).filter(({ uuid }) => uuid !== definition.uuid);
  const used = await Promise.all(others.map((guest) => broughtFiles(storedDefinition(guest))));
  const inUse = new Set(used.flat());
  for (const path of await broughtFiles(definition)) if (!inUse.has(path)) await ownership.giveBack(path);
}

/** Nothing is thrown away before what the guest wrote stands in the user's own disks. @throws StasisError `busy` */
async function checkBackInRoots({ catalog }: Host, plan: UndefinePlan): Promise<void> {
  for (const { disk, layer } of await headIds(catalog, plan.guest)) {
    if (!plan.roots.includes(layer))
      throw new StasisError(
        'busy',
        `disk ${disk} of ${plan.name} can't be brought back into its own file now: a guest on the same disks is busy`,
      );
  }
}

/** @throws StasisError `image-protected` naming all that are */
function refuseWithProtected({ name }: GuestRecord, images: readonly ImageRecord[]): void {
  const names = images.filter((image) => image.protected === 1).map((image) => image.name);
  if (names.length === 0) return;
  throw new StasisError(
    'image-protected',
    `guest ${name} has protected images, which would be lost: ${names.join(', ')}; \`stasis unprotect ${name} IMAGE\` each first`,
    { details: { images: names } },
  );
}

/** @throws StasisError `disk-in-use` naming the clones whose disks stand on what would be gone */
async function refuseWithClones(host: Host, guest: GuestRecord): Promise<void> {
  const { catalog } = host;
  const roots = await rootsOfGuest(catalog, guest.uuid);
  const { layers } = await treesOf(catalog, roots);
  const ours = layers.filter((layer) => layer.guest === guest.uuid).map(({ id }) => id);
  const others = (await guestsOver(catalog, ours)).filter((uuid) => uuid !== guest.uuid);
  if (others.length === 0) return;
  const names = await Promise.all(others.map(async (uuid) => (await getGuestByUuid(catalog, uuid)).name));
  throw new StasisError(
    'disk-in-use',
    `the disks of ${guest.name} carry those of its clones ${names.toSorted().join(', ')}; \`stasis undefine\` them first`,
    { details: { clones: names } },
  );
}

/** @throws StasisError `disk-in-use` naming what is being read of the guest's images */
async function refuseWithReaders(host: Host, guest: GuestRecord): Promise<void> {
  const readers = (await host.readers.list()).filter((reader) => reader.guest === guest.uuid);
  if (readers.length === 0) return;
  const read = readers.map(({ image, disk }) => `${image} (disk ${disk})`).join(', ');
  throw new StasisError(
    'disk-in-use',
    `somebody reads images of ${guest.name} by \`stasis export\` or \`stasis mount\`: ${read}; end that first`,
    { details: { images: readers.map(({ image }) => image) } },
  );
}
