/**
 * Restoring an image: the guest becomes what it was, on new heads over the image's layers, so that the image can be
 * restored any number of times. The new machine is loaded beside the present one, and only when it stands ready, with
 * all its memory, is the present one given up: a restore that fails leaves the guest as it is.
 */
import { randomUUID } from 'node:crypto';
import { DEFAULT_IMAGE } from '../api/constants.ts';
import type { Catalog } from '../catalog/database.ts';
import {
  getGuestByUuid,
  setCurrentImage,
  setDefinition,
  setFrozen,
  setInstance,
  setTpm,
} from '../catalog/guests.ts';
import {
  countRestore,
  findImageById,
  getImageById,
  updateImage,
  type ImageRecord,
} from '../catalog/images.ts';
import {
  deletePins,
  getLayer,
  insertPin,
  pinnedBy,
  pinsOf,
  rootsOfGuest,
  setHead,
  setIdentity,
} from '../catalog/layers.ts';
import { StasisError } from '../errors.ts';
import { letRun } from '../guests/boot.ts';
import { runAsNow } from '../guests/build.ts';
import { storedDefinition, type Definition } from '../guests/definition.ts';
import {
  checkSeals,
  headIds,
  installHeads,
  loadForest,
  machineDisks,
  makeLayers,
  planHeads,
  removeLayers,
  settleLayers,
  unseal,
  type DiskLayerId,
} from '../guests/disks.ts';
import { availableBytes, freeHugePageBytes, refuseWithoutHugePages } from '../guests/host-memory.ts';
import type { Host } from '../guests/host.ts';
import { removeOldTpms } from '../guests/tpm.ts';
import { newId } from '../ids.ts';
import type { OperationHandle, Procedure } from '../operations/procedure.ts';
import type { RestoreMethodName } from '../qemu/restore/restore.ts';
import type { PlannedLayer } from '../storage/driver.ts';
import { describeChange, provesContent, type FileIdentity } from '../storage/identity.ts';
import { putRight } from './afterwards.ts';
import { collect } from './collect.ts';
import { dropImage, forget } from './delete.ts';
import { checkedMemory, chooseRestoreMethod, loadMachine, manifestOf } from './load.ts';
import { markLost } from './lost.ts';
import { checkMedia } from './media.ts';
import { checkImageName, requireImage } from './names.ts';
import { refuseOtherQemu } from './preflight.ts';
import { refuseProtected } from './protect.ts';
import { saveProcedure } from './save.ts';
import { fromStored } from '../stored.ts';

export interface RestoreArgs {
  readonly name?: string;
  /** `unless-protected`: as a start does, to which the image is a means */
  readonly delete?: boolean | 'unless-protected';
  readonly paused?: boolean;
  readonly method?: RestoreMethodName;
  /** name of the image that first takes what the guest is now */
  readonly saveCurrent?: string;
  /** refuse when the guest runs: what it is then is not to be given up */
  readonly ifStopped?: boolean;
}

interface RestorePlan {
  readonly guest: string;
  readonly image: string;
  readonly instance: string;
  readonly delete: boolean;
  readonly paused: boolean;
  readonly method: RestoreMethodName;
  /** the new id of the guest's life; null when it just goes on where it was saved, and the image is gone then */
  readonly generation: string | null;
  readonly saveCurrent: string | null;
  /** new heads made from the image's layers */
  readonly heads: readonly PlannedLayer[];
  /** layers of the image that are simply written to again: the image goes, and nothing else stands on them */
  readonly reused: readonly ReusedLayer[];
  /** the present machine, which is given up */
  readonly replaces: string | null;
  /** the present machine holds something that two can't have: it goes first */
  readonly alone: boolean;
}

interface ReusedLayer {
  readonly disk: string;
  readonly layer: string;
  /** its seal, before the restore broke it */
  readonly identity: string | null;
}

/** From here on the image's memory may be gone. */
const DELETE_IMAGE = 'delete-image';

export function restoreProcedure(host: Host): Procedure<RestoreArgs, RestorePlan> {
  const { catalog, supervisor } = host;

  return {
    name: 'restore',
    cancellable: true,

    async plan(args, subject) {
      const guest = await getGuestByUuid(catalog, subject.guest ?? subject.guestName);
      if (args.ifStopped === true && guest.instance !== null)
        throw new StasisError('invalid-state', `guest ${guest.name} already runs`, { guest: guest.name });
      await markLost(host);
      const image = await requireImage(catalog, guest, args.name ?? DEFAULT_IMAGE);
      if (args.delete === true) refuseProtected(image, guest.name, 'deleted after the restore');
      const deletes = args.delete === 'unless-protected' ? image.protected === 0 : args.delete === true;
      const manifest = manifestOf(image);
      if (args.saveCurrent !== undefined) {
        checkImageName(args.saveCurrent);
        supervisor.get(guest.uuid, guest.name);
      }
      const pins = (await pinsOf(catalog, image.id)).map(({ disk, layer }) => ({ disk, layer: layer.id }));
      await checkSeals(host, pins);
      const memory = await checkedMemory(host, image);
      await refuseOtherQemu(host, guest.name, image, storedDefinition(guest).qemu.build);
      const stopped = guest.instance === null;
      const reused = deletes && stopped ? await reusable(host, guest.uuid, pins) : [];
      const alone = !stopped && (await needsToBeAlone(manifest.definition));
      if (stopped) await refuseWithoutHugePages(guest.name, manifest.definition);
      const over = pins.filter(({ disk }) => !reused.some((pin) => pin.disk === disk));
      return {
        guest: guest.uuid,
        image: image.id,
        instance: newId(),
        delete: deletes,
        paused: args.paused ?? manifest.guestWasPaused,
        method: await chooseRestoreMethod(host, image, memory, args.method),
        generation: stopped && deletes ? null : randomUUID(),
        saveCurrent: args.saveCurrent ?? null,
        heads: await planHeads(host, { definition: manifest.definition, data: host.paths.data }, over),
        reused,
        replaces: guest.instance,
        alone,
      };
    },

    async run(plan, operation) {
      const image = await getImageById(catalog, plan.image);
      if (plan.saveCurrent !== null) {
        await operation.child(
          'save',
          saveProcedure(host),
          { name: plan.saveCurrent, live: true },
          plan.saveCurrent,
        );
      }
      const { media = [] } = manifestOf(image);
      if (media.length > 0) await operation.step('check-media', () => checkMedia(host, media, operation));
      await operation.step('lay-heads', () => makeLayers(host, plan.heads, operation.signal));
      if (plan.alone) await operation.step('stop-present', () => supervisor.end(plan.guest));
      await operation.step('load', async () => {
        await unseal(
          catalog,
          plan.reused.map(({ layer }) => layer),
        );
        await Promise.all([
          load(host, plan, image, operation),
          settleLayers(host, plan.heads),
          // Once it runs the image's own layers are written to: whoever has only the records must not promise it any more.
          plan.reused.length > 0 ? host.records.flush() : undefined,
        ]);
      });
      await operation.commit(async (transaction) => {
        await installHeads(transaction, plan.guest, plan.heads);
        for (const { disk, layer } of plan.reused) await setHead(transaction, plan.guest, disk, layer);
        await becomes(transaction, plan, image);
        await setDefinition(
          transaction,
          plan.guest,
          JSON.stringify(await restoredDefinition(transaction, plan, image)),
        );
        await setCurrentImage(transaction, plan.guest, plan.image);
        await countRestore(transaction, plan.image, plan.method);
        // Its layers are about to be written to: from here on it can't be promised to restore.
        if (plan.reused.length > 0) await dropImage(transaction, image);
      });
    },

    async undo(plan) {
      await supervisor.discard(plan.instance);
      await removeOldTpms(host, plan.guest);
      await removeLayers(host, plan.heads);
      for (const { layer, identity } of plan.reused) await setIdentity(catalog, layer, identity);
    },

    async finish(plan, operation) {
      const image = await findImageById(catalog, plan.image);
      let failure: StasisError | undefined;
      if (image !== undefined) {
        await operation.step('give-up-present', () =>
          supervisor.replace(plan.guest, plan.replaces, plan.instance),
        );
        await removeOldTpms(host, plan.guest);
        const outcome = await bringBack(host, plan, image, operation);
        if (outcome.imageIsSpent) await operation.step(DELETE_IMAGE, () => dropAndForget(host, plan, image));
        failure = outcome.failure;
      }
      await collect(host, plan.guest, operation);
      return failure;
    },
  };
}

/** The loaded process is the guest, and as frozen as it was when it was saved. */
async function becomes(catalog: Catalog, plan: RestorePlan, image: ImageRecord): Promise<void> {
  await setInstance(catalog, plan.guest, plan.instance);
  await setTpm(catalog, plan.guest, plan.instance);
  await setFrozen(catalog, plan.guest, manifestOf(image).quiesce?.isInMemory === true);
}

/** The machine of the image on its new heads, or on its own layers. */
async function load(
  host: Host,
  plan: RestorePlan,
  image: ImageRecord,
  operation: OperationHandle,
): Promise<void> {
  const { instance, method } = plan;
  const disks = await machineDisks(host.catalog, plan.reused, plan.heads);
  const definition = await restoredDefinition(host.catalog, plan, image);
  await loadMachine(host, image, { instance, method, definition, disks }, operation);
}

interface Outcome {
  readonly failure?: StasisError | undefined;
  /** the image was to be deleted, and the guest is proven to run, or has written to the image's own layers */
  readonly imageIsSpent: boolean;
}

/**
 * After the commit the loaded machine runs. When it died before, with the daemon or alone, what it stands on tells
 * what to do: layers of the image itself that nobody wrote to go back to the image; new heads are as the image left
 * them, and the memory is loaded once more; a guest that has run already is a guest that crashed.
 */
async function bringBack(
  host: Host,
  plan: RestorePlan,
  image: ImageRecord,
  operation: OperationHandle,
): Promise<Outcome> {
  if ((await host.supervisor.attach(plan.instance, plan.guest)) === undefined) {
    if (await untouched(host, plan, operation))
      return { failure: await giveBack(host, plan, image, operation), imageIsSpent: false };
    const failure = operation.reached('run') ? undefined : await loadAgain(host, plan, image, operation);
    if (failure !== undefined) return { failure, imageIsSpent: false };
  }
  let failure = await operation.step('run', () =>
    letRun(host, plan.guest, plan.instance, plan.paused, operation),
  );
  // A guest whose memory is still arriving from the image may yet be lost, and is restored from it once more then.
  if (failure === undefined && plan.delete) failure = await getsAllMemory(host, plan, image, operation);
  if (failure === undefined) {
    const { definition: savedDefinition, createdAt: savedAt } = manifestOf(image);
    const definition = await restoredDefinition(host.catalog, plan, image);
    const { guest: uuid, paused } = plan;
    await putRight(host, { uuid, definition, savedDefinition, savedAt, paused }, operation);
  }
  return { failure, imageIsSpent: plan.delete && (failure === undefined || plan.reused.length > 0) };
}

async function getsAllMemory(
  { supervisor }: Host,
  { guest }: RestorePlan,
  image: ImageRecord,
  operation: OperationHandle,
): Promise<StasisError | undefined> {
  try {
    await supervisor.memoryArrived(guest, {
      onProgress: ({ bytesDone, bytesTotal }) => operation.progress(bytesDone, bytesTotal),
    });
    return undefined;
  } catch (error) {
    const failure = StasisError.from(error);
    if (failure.code !== 'guest-crashed') throw error;
    await supervisor.whenEnded(guest);
    return new StasisError(
      'guest-crashed',
      `QEMU ended before guest ${operation.guestName} had all of its memory`,
      { guest: operation.guestName, image: image.name, cause: error },
    );
  }
}

async function loadAgain(
  host: Host,
  plan: RestorePlan,
  image: ImageRecord,
  operation: OperationHandle,
): Promise<StasisError | undefined> {
  await host.supervisor.discard(plan.instance);
  try {
    await operation.step('load-again', () => load(host, plan, image, operation));
    await becomes(host.catalog, plan, image);
    return undefined;
  } catch (error) {
    const failure = StasisError.from(error);
    await host.supervisor.end(plan.guest, `restoring ${image.name} failed: ${failure.message}`);
    return failure;
  }
}

/** The guest was stopped, its image was to be resumed and dropped, and nothing of it ran: all is as it was before. */
async function giveBack(
  host: Host,
  plan: RestorePlan,
  image: ImageRecord,
  operation: OperationHandle,
): Promise<StasisError> {
  await host.supervisor.end(plan.guest);
  await host.catalog.transaction().execute(async (transaction) => {
    await updateImage(transaction, image.id, { state: 'ready' });
    await deletePins(transaction, image.id);
    for (const { disk, layer, identity } of plan.reused) {
      await insertPin(transaction, image.id, disk, layer);
      await setIdentity(transaction, layer, identity);
    }
  });
  return new StasisError(
    'guest-crashed',
    `QEMU ended before guest ${operation.guestName} ran; image ${image.name} is as it was, restore it again`,
    {
      guest: operation.guestName,
      image: image.name,
    },
  );
}

/** A guest may have run, and the image's memory be gone, without a trace on its disks: after a power cut, or when it only read. */
async function untouched(host: Host, plan: RestorePlan, operation: OperationHandle): Promise<boolean> {
  if (operation.reached(DELETE_IMAGE)) return false;
  for (const { layer, identity } of plan.reused) {
    if (identity === null) return false;
    const record = await getLayer(host.catalog, layer);
    const now = await host.drivers.get(record.driver).identity(record);
    if (describeChange(fromStored<FileIdentity>(identity), now) !== undefined) return false;
    if (!provesContent(now) && operation.reached('run')) return false;
  }
  return plan.reused.length > 0;
}

async function dropAndForget(host: Host, plan: RestorePlan, image: ImageRecord): Promise<void> {
  if (image.state !== 'deleting')
    await host.catalog.transaction().execute((transaction) => dropImage(transaction, image));
  await forget(host, plan.guest, image.id);
}

/** The machine is the image's; what was decided about the guest since then stays: its host policy, its labels, its QEMU. */
async function restoredDefinition(
  catalog: Catalog,
  { guest, generation }: RestorePlan,
  image: ImageRecord,
): Promise<Definition> {
  const present = await getGuestByUuid(catalog, guest);
  const { policy, labels } = storedDefinition(present);
  const { labels: _saved, ...definition } = runAsNow(manifestOf(image).definition, present);
  // A guest that was defined without a generation id has no device for it.
  const hasGeneration = generation !== null && definition.generation !== undefined;
  return {
    ...definition,
    policy,
    ...(labels === undefined ? {} : { labels }),
    ...(hasGeneration ? { generation } : {}),
  };
}

/**
 * A stopped guest whose image is to go can write to the image's layers again, when nothing else stands on them or
 * pins them: suspend and resume a thousand times, and the chain never grows. All disks or none.
 */
async function reusable(
  host: Host,
  guest: string,
  pins: readonly DiskLayerId[],
): Promise<readonly ReusedLayer[]> {
  const forest = await loadForest(host, await rootsOfGuest(host.catalog, guest));
  const heads = await headIds(host.catalog, guest);
  for (const { disk, layer } of pins) {
    const isHead = heads.some((head) => head.disk === disk && head.layer === layer);
    const hasChild = forest.layers.some(({ parent }) => parent === layer);
    const isRead = (await host.readers.layers()).has(layer);
    if (!isHead || hasChild || isRead || (await pinnedBy(host.catalog, layer)).length > 1) return [];
  }
  return Promise.all(
    pins.map(async ({ disk, layer }) => ({
      disk,
      layer,
      identity: (await getLayer(host.catalog, layer)).identity,
    })),
  );
}

/** A tap device, a disk without layers, and the ports of hand-written arguments can't be had twice; nor can memory that isn't there. */
async function needsToBeAlone(definition: Definition): Promise<boolean> {
  const { networks, disks, qemu, memoryBytes, hugePageBytes } = definition;
  if (disks.some(({ capture }) => capture === false)) return true;
  if (networks.some(({ type }) => type === 'tap') || qemu.args.length > 0) return true;
  if (hugePageBytes !== undefined) return (await freeHugePageBytes(hugePageBytes)) < memoryBytes;
  return (await availableBytes()) < memoryBytes * 1.1;
}
