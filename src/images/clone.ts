/**
 * A new guest from an image of another: with its memory, running at once. It has a name, a UUID, network addresses
 * and a generation id of its own, and heads of its own made from the image's layers; memory and disks are shared
 * until it writes to them. Any number at once: the guest the image is of, and the image, are only read.
 */
import { randomUUID } from 'node:crypto';
import { DEFAULT_IMAGE, NAME_PATTERN } from '../api/constants.ts';
import { getGuestByUuid, listGuests, setFrozen, setTpm } from '../catalog/guests.ts';
import { countRestore, getImageById } from '../catalog/images.ts';
import { pinsOf } from '../catalog/layers.ts';
import { StasisError } from '../errors.ts';
import { letRun } from '../guests/boot.ts';
import { runAsNow } from '../guests/build.ts';
import { alreadyDefined, insertDefined } from '../guests/define.ts';
import { storedDefinition, type Definition } from '../guests/definition.ts';
import { randomMac } from '../guests/definition/networks.ts';
import {
  checkSeals,
  installHeads,
  leaveDisks,
  machineDisks,
  makeLayers,
  planHeads,
  removeLayers,
  settleLayers,
} from '../guests/disks.ts';
import { refuseWithoutHugePages } from '../guests/host-memory.ts';
import type { Host } from '../guests/host.ts';
import { removeGuestDirectory } from '../guests/tpm.ts';
import { newId } from '../ids.ts';
import type { Procedure } from '../operations/procedure.ts';
import type { RestoreMethodName } from '../qemu/restore/restore.ts';
import type { PlannedLayer } from '../storage/driver.ts';
import { putRight } from './afterwards.ts';
import { requireImage } from './names.ts';
import { checkedMemory, chooseRestoreMethod, loadMachine, manifestOf } from './load.ts';
import { markLost } from './lost.ts';
import { checkMedia, refuseExcluded } from './media.ts';
import { refuseOtherQemu } from './preflight.ts';

export interface CloneArgs {
  /** UUID of the guest the image is of */
  readonly source: string;
  readonly name?: string;
  readonly paused?: boolean;
  readonly method?: RestoreMethodName;
}

interface ClonePlan {
  readonly image: string;
  readonly instance: string;
  readonly definition: Definition;
  readonly paused: boolean;
  readonly method: RestoreMethodName;
  readonly heads: readonly PlannedLayer[];
}

export function cloneProcedure(host: Host): Procedure<CloneArgs, ClonePlan> {
  const { catalog, supervisor } = host;

  return {
    name: 'clone',
    cancellable: true,

    async plan(args, subject) {
      await checkNewName(host, subject.guestName);
      const source = await getGuestByUuid(catalog, args.source);
      await markLost(host);
      const image = await requireImage(catalog, source, args.name ?? DEFAULT_IMAGE);
      const pins = (await pinsOf(catalog, image.id)).map(({ disk, layer }) => ({ disk, layer: layer.id }));
      await checkSeals(host, pins);
      const memory = await checkedMemory(host, image);
      const { definition: saved, guestWasPaused, media = [] } = manifestOf(image);
      refuseExcluded(media, source.name);
      await refuseWithoutHugePages(subject.guestName, saved);
      await refuseOtherQemu(host, source.name, image, storedDefinition(source).qemu.build);
      const definition = ownDefinition(runAsNow(saved, source), subject.guestName, {
        guest: source.name,
        image: image.name,
      });
      return {
        image: image.id,
        instance: newId(),
        definition,
        paused: args.paused ?? guestWasPaused,
        method: await chooseRestoreMethod(host, image, memory, args.method),
        heads: await planHeads(host, { definition, data: host.paths.data }, pins),
      };
    },

    async run(plan, operation) {
      const { definition, heads, image: id, instance, method } = plan;
      const image = await getImageById(catalog, id);
      const { media = [] } = manifestOf(image);
      if (media.length > 0) await operation.step('check-media', () => checkMedia(host, media, operation));
      await operation.step('lay-heads', () => makeLayers(host, heads, operation.signal));
      await operation.step('load', async () => {
        const disks = await machineDisks(catalog, [], heads);
        await Promise.all([
          loadMachine(host, image, { instance, definition, method, disks }, operation),
          settleLayers(host, heads),
        ]);
      });
      await operation.commit(async (transaction) => {
        await insertDefined(transaction, definition, instance);
        await setTpm(transaction, definition.uuid, instance);
        await setFrozen(transaction, definition.uuid, manifestOf(image).quiesce?.isInMemory === true);
        await installHeads(transaction, definition.uuid, heads);
        await countRestore(transaction, id, method);
      });
    },

    async undo(plan) {
      await supervisor.discard(plan.instance);
      await removeLayers(host, plan.heads);
      await leaveDisks(host, { definition: plan.definition, data: host.paths.data });
      await removeGuestDirectory(host.paths.data, plan.definition.uuid);
    },

    async finish(plan, operation) {
      const { definition, instance, paused } = plan;
      const failure = await operation.step('run', () =>
        letRun(host, definition.uuid, instance, paused, operation),
      );
      if (failure !== undefined) return failure;
      const { definition: savedDefinition, createdAt: savedAt } = manifestOf(
        await getImageById(catalog, plan.image),
      );
      await putRight(
        host,
        { uuid: definition.uuid, definition, savedDefinition, savedAt, paused },
        operation,
      );
      await operation.publish({
        type: 'guest',
        action: 'defined',
        message: `${definition.name} cloned from ${definition.clone?.guest} / ${definition.clone?.image}`,
      });
      return undefined;
    },
  };
}

/** The machine of the image under an identity of its own; what the memory knows of the old one `putRight` tells. */
function ownDefinition(saved: Definition, name: string, clone: Definition['clone']): Definition {
  return {
    ...saved,
    name,
    uuid: randomUUID(),
    networks: saved.networks.map((network) => ({ ...network, mac: randomMac() })),
    ...(saved.generation === undefined ? {} : { generation: randomUUID() }),
    ...(clone === undefined ? {} : { clone }),
  };
}

async function checkNewName(host: Host, name: string): Promise<void> {
  if (!new RegExp(NAME_PATTERN).test(name)) {
    throw new StasisError(
      'invalid-name',
      `"${name}" can't be a guest's name: letters, digits, ".", "_" and "-", starting with a letter or digit, at most 64`,
    );
  }
  if ((await listGuests(host.catalog)).some((guest) => guest.name === name)) throw alreadyDefined(name);
}
