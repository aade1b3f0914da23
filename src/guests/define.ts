/** Making a guest known: `define`, and its host policy. */
import { readFile, realpath, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { DriverName } from '../api/constants.ts';
import type { Policy } from '../api/schemas.ts';
import { isDuplicate, type Catalog } from '../catalog/database.ts';
import { getGuestByUuid, hasGuest, insertGuest, listGuests, setDefinition } from '../catalog/guests.ts';
import { insertLayer, listLayers, setHead } from '../catalog/layers.ts';
import { setRetention } from '../catalog/retention.ts';
import { insertSchedule } from '../catalog/schedules.ts';
import { StasisError, errnoOf } from '../errors.ts';
import { newId } from '../ids.ts';
import type { Procedure } from '../operations/procedure.ts';
import { resolveAccelerator } from '../qemu/build/accelerator.ts';
import { qemuTypes } from '../qemu/build/device-types.ts';
import { resolveMachineType } from '../qemu/build/machine-types.ts';
import { findTpmProgram } from '../qemu/tpm.ts';
import { checkDevices } from './check-devices.ts';
import {
  storedDefinition,
  pinDefinition,
  readUpkeep,
  type Definition,
  type DiskDefinition,
  type Upkeep,
} from './definition.ts';
import { sealOf } from './disks.ts';
import type { Host } from './host.ts';
import { makeVariables, newVariables, resolveFirmware } from './uefi.ts';

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
  /** the variable store that is to be made; none when the guest has none, or the user's own */
  readonly variables?: { readonly path: string; readonly template: string };
  /** absent in plans of before there was any */
  readonly upkeep?: Upkeep;
}

/** Disks that can carry a layer, by their format, and that images are to hold. Others can be used, but their guest can't be saved while they are writable. */
export function isLayered(
  disk: DiskDefinition,
): disk is DiskDefinition & { readonly format: 'qcow2' | 'raw' } {
  return !disk.readonly && disk.capture !== false && (disk.format === 'qcow2' || disk.format === 'raw');
}

/** Disks that no image holds: they can't change, or their definition says so. */
export function isNotCaptured({ readonly, capture }: DiskDefinition): boolean {
  return readonly || capture === false;
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
        resolveMachine: async (machine, build) => resolveMachineType(await host.builds.get(build), machine),
        resolveAccelerator: async (wanted, build) => {
          const by = { binary: await host.builds.get(build), cacheDirectory: host.paths.cache };
          return (await resolveAccelerator(wanted, by)).accelerator;
        },
        resolveFirmware: (wanted) => resolveFirmware(host, wanted),
      });
      checkDevices(pinned, await qemuTypes(await host.builds.get(pinned.qemu.build)));
      await checkUnknown(host, pinned);
      if (pinned.tpm === true) await findTpmProgram();
      const variables = newVariables(host, pinned);
      const isNew = ({ path }: DiskDefinition) => path === variables?.path;
      const real = await Promise.all(
        pinned.disks.map(async (disk) =>
          isNew(disk) ? disk : { ...disk, path: await realDisk(pinned.name, disk) },
        ),
      );
      await checkDisksFree(host, { ...pinned, disks: real });
      const roots = await Promise.all(
        real
          .filter(isLayered)
          .map((disk) =>
            isNew(disk)
              ? rootLayer(host, pinned.name, { ...disk, driver: 'overlay' }, variables?.template)
              : rootLayer(host, pinned.name, disk),
          ),
      );
      const disks = real.map((disk) => {
        const root = roots.find((candidate) => candidate.disk === disk.name);
        return root === undefined ? disk : { ...disk, driver: root.driver };
      });
      return {
        definition: { ...pinned, disks },
        roots,
        upkeep: readUpkeep(args.definition, pinned.uuid),
        ...(variables === undefined ? {} : { variables }),
      };
    },

    async run({ definition, roots, variables, upkeep }, operation) {
      if (variables !== undefined)
        await operation.step('make-variable-store', () => makeVariables(variables));
      await operation.commit(async (transaction) => {
        await insertDefined(transaction, definition, null);
        for (const { disk, id, path, format, sizeBytes, driver } of roots) {
          const identity = JSON.stringify(await sealOf(host.drivers, { path, driver }));
          await insertLayer(transaction, {
            ...{ id, path, format, sizeBytes, driver, identity },
            ...{ parent: null, root: 1, tree: id, guest: definition.uuid },
          });
          await setHead(transaction, definition.uuid, disk, id);
        }
        for (const schedule of upkeep?.schedules ?? []) await insertSchedule(transaction, schedule);
        if (upkeep !== undefined && upkeep.retention !== null)
          await setRetention(transaction, definition.uuid, JSON.stringify(upkeep.retention));
      });
      await operation.publish({ type: 'guest', action: 'defined', message: `${definition.name} defined` });
    },

    async undo({ definition, variables }) {
      if (variables === undefined || (await hasGuest(host.catalog, definition.uuid))) return;
      await rm(dirname(variables.path), { recursive: true, force: true });
    },
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
    return await lastingName(disk.path, await realpath(disk.path));
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

/**
 * Such devices are numbered anew at each start of the host. Those of the device mapper have another name that stays; of
 * the others (ZFS, Ceph) the link that was given is the only one.
 */
async function lastingName(given: string, path: string): Promise<string> {
  if (/^\/dev\/(zd|rbd)\d+/.test(path)) return given;
  const [, device] = /^\/dev\/(dm-\d+)$/.exec(path) ?? [];
  if (device === undefined) return path;
  return `/dev/mapper/${(await readFile(`/sys/class/block/${device}/dm/name`, 'utf8')).trim()}`;
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
    const layer = layers.get(disk.path);
    if (user === undefined && layer === undefined) continue;
    const owner = user ?? others.find(({ uuid }) => uuid === layer?.guest);
    const by = owner === undefined ? 'another guest' : `guest ${owner.name}`;
    const what = user === undefined ? `is a layer of ${by}` : `already belongs to ${by}`;
    throw new StasisError(
      'disk-in-use',
      `disk ${disk.name} of guest ${definition.name}: ${disk.path} ${what}; a disk that two guests share, of which one writes, can't be captured at one instant`,
      {
        guest: definition.name,
        details: { disk: disk.name, path: disk.path, ...(owner === undefined ? {} : { usedBy: owner.name }) },
      },
    );
  }
}

/** @param path what it looks like, when it isn't there yet */
async function rootLayer(
  host: Host,
  guest: string,
  disk: DiskDefinition & { readonly format: 'qcow2' | 'raw' },
  path: string = disk.path,
): Promise<RootLayer> {
  const info = await host.ownership.whileRead(path, () => host.imageTool.info(path));
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
    driver:
      path === disk.path
        ? await host.ownership.whileRead(path, () =>
            host.drivers.choose({ ...disk, reserveBytes: disk.snapshotBytes }, disk.driver),
          )
        : (disk.driver ?? 'overlay'),
  };
}
