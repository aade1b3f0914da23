/** Making a guest known: `define`, and its host policy. */
import { realpath } from 'node:fs/promises';
import type { DriverName } from '../api/constants.ts';
import type { Policy } from '../api/schemas.ts';
import { isDuplicate, type Catalog } from '../catalog/database.ts';
import { getGuestByUuid, insertGuest, listGuests, setDefinition } from '../catalog/guests.ts';
import { insertLayer, listLayers, setHead } from '../catalog/layers.ts';
import { StasisError, errnoOf } from '../errors.ts';
import { newId } from '../ids.ts';
import type { Procedure } from '../operations/procedure.ts';
import { resolveAccelerator } from '../qemu/accelerator.ts';
import { resolveMachineType } from '../qemu/machine-types.ts';
import { storedDefinition, pinDefinition, type Definition, type DiskDefinition } from './definition.ts';
import type { Host } from './host.ts';

interface RootLayer {
  readonly disk: string;
  readonly id: string;
  readonly path: string;
  readonly format: 'qcow2' | 'raw';
  readonly sizeBytes: number;
  readonly driver: DriverName;
}

interface DefinePlan {
  readonly definition: Definition;
  readonly roots: readonly RootLayer[];
}

/** Formats whose disks can carry a layer. Others can be used, but their guest can't be saved while they are writable. */
export function isLayered(
  disk: DiskDefinition,
): disk is DiskDefinition & { readonly format: 'qcow2' | 'raw' } {
  return !disk.readonly && (disk.format === 'qcow2' || disk.format === 'raw');
}

/** Reads, checks and pins a definition; the disks' files become the root layers. */
export function defineProcedure(
  host: Host,
): Procedure<{ definition: unknown; directory: string }, DefinePlan> {
  return {
    name: 'define',
    cancellable: false,

    async plan(args) {
      const pinned = await pinDefinition(args.definition, args.directory, {
        resolveMachine: (machine) => resolveMachineType(host.qemu, machine),
        resolveAccelerator: async (wanted) =>
          (await resolveAccelerator(wanted, { binary: host.qemu, cacheDirectory: host.paths.cache }))
            .accelerator,
      });
      await checkUnknown(host, pinned);
      const real = await Promise.all(
        pinned.disks.map(async (disk) => ({ ...disk, path: await realDisk(pinned.name, disk) })),
      );
      await checkDisksFree(host, { ...pinned, disks: real });
      const roots = await Promise.all(
        real.filter(isLayered).map((disk) => rootLayer(host, pinned.name, disk)),
      );
      const disks = real.map((disk) => {
        const root = roots.find((candidate) => candidate.disk === disk.name);
        return root === undefined ? disk : { ...disk, driver: root.driver };
      });
      return { definition: { ...pinned, disks }, roots };
    },

    async run({ definition, roots }, operation) {
      await operation.commit(async (transaction) => {
        await insertDefined(transaction, definition, null);
        for (const { disk, id, path, format, sizeBytes, driver } of roots) {
          const identity = JSON.stringify(await host.drivers.get(driver).identity({ path, driver }));
          await insertLayer(transaction, {
            ...{ id, path, format, sizeBytes, driver, identity },
            ...{ parent: null, root: 1, tree: id, guest: definition.uuid },
          });
          await setHead(transaction, definition.uuid, disk, id);
        }
      });
      await operation.publish({ type: 'guest', action: 'defined', message: `${definition.name} defined` });
    },

    undo: () => Promise.resolve(),
    finish: () => Promise.resolve(),
  };
}

/** Changes a guest's host policy. */
export function policyProcedure(): Procedure<Partial<Policy>, { guest: string; change: Partial<Policy> }> {
  return {
    name: 'policy',
    cancellable: false,
    plan: (args, subject) => Promise.resolve({ guest: subject.guest ?? '', change: args }),
    run: (plan, operation) =>
      operation.commit(async (transaction) => {
        const guest = await getGuestByUuid(transaction, plan.guest);
        const definition = storedDefinition(guest);
        await setDefinition(
          transaction,
          plan.guest,
          JSON.stringify({ ...definition, policy: { ...definition.policy, ...plan.change } }),
        );
      }),
    undo: () => Promise.resolve(),
    finish: () => Promise.resolve(),
  };
}

/**
 * The row of a guest that was not there before. Part of a commit.
 * @param instance the process that is this guest from the start, if it has one
 * @throws StasisError `guest-exists`
 */
export async function insertDefined(
  transaction: Catalog,
  definition: Definition,
  instance: string | null,
): Promise<void> {
  try {
    await insertGuest(transaction, {
      uuid: definition.uuid,
      name: definition.name,
      definition: JSON.stringify(definition),
      instance,
      crashed: 0,
      stateReason: null,
      currentImage: null,
      createdAt: new Date().toISOString(),
    });
  } catch (error) {
    throw isDuplicate(error) ? alreadyDefined(definition.name) : error;
  }
}

export function alreadyDefined(name: string): StasisError {
  return new StasisError(
    'guest-exists',
    `there already is a guest "${name}"; \`stasis undefine ${name}\` first, or choose another name`,
    { guest: name },
  );
}

async function checkUnknown(host: Host, definition: Definition): Promise<void> {
  for (const guest of await listGuests(host.catalog)) {
    if (guest.name === definition.name) throw alreadyDefined(definition.name);
    if (guest.uuid === definition.uuid) {
      throw new StasisError('guest-exists', `guest "${guest.name}" already has the UUID ${definition.uuid}`, {
        guest: definition.name,
      });
    }
  }
}

async function realDisk(guest: string, disk: DiskDefinition): Promise<string> {
  try {
    return await realpath(disk.path);
  } catch (error) {
    const reason =
      errnoOf(error) === 'ENOENT' ? 'does not exist' : `can not be read (${errnoOf(error) ?? 'unknown'})`;
    throw new StasisError(
      'disk-missing',
      `disk ${disk.name} of guest ${guest}: ${disk.path} ${reason}; make it with \`qemu-img create\` or correct the path`,
      {
        guest,
        details: { disk: disk.name, path: disk.path },
        cause: error,
      },
    );
  }
}

/** No file is ever written to by two guests, nor by one while another reads it. */
async function checkDisksFree(host: Host, definition: Definition): Promise<void> {
  const layers = new Map((await listLayers(host.catalog)).map((layer) => [layer.path, layer]));
  const others = await listGuests(host.catalog);
  for (const disk of definition.disks) {
    const user = others.find((guest) =>
      storedDefinition(guest).disks.some(
        (other) => other.path === disk.path && !(other.readonly && disk.readonly),
      ),
    );
    if (user !== undefined || layers.has(disk.path)) {
      const by = user === undefined ? 'a layer of another guest' : `guest ${user.name}`;
      throw new StasisError(
        'disk-in-use',
        `disk ${disk.name} of guest ${definition.name}: ${disk.path} already belongs to ${by}`,
        {
          guest: definition.name,
          details: { disk: disk.name, path: disk.path },
        },
      );
    }
  }
}

async function rootLayer(
  host: Host,
  guest: string,
  disk: DiskDefinition & { readonly format: 'qcow2' | 'raw' },
): Promise<RootLayer> {
  const info = await host.imageTool.info(disk.path);
  if (info.format !== disk.format && disk.format !== 'raw') {
    throw new StasisError(
      'invalid-definition',
      `disk ${disk.name} of guest ${guest}: ${disk.path} is ${info.format}, not ${disk.format}`,
      {
        guest,
        details: { disk: disk.name, path: disk.path },
      },
    );
  }
  return {
    disk: disk.name,
    id: newId(),
    path: disk.path,
    format: disk.format,
    sizeBytes: info['virtual-size'],
    driver: await host.drivers.choose(disk, disk.driver),
  };
}
