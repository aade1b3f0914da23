/** Disks: every layer is a node of the block graph, the head of a chain is what a device writes to. */
import type { CacheOptions, NodeOptions } from '../../qemu/block/block-graph.ts';
import type { Definition, DiskDefinition } from '../definition.ts';
import { VARIABLE_STORE } from '../definition/disks.ts';
import { controllerArgs, controllerId, hasController } from '../devices/controllers.ts';
import { device } from './arguments.ts';
import { SLOT, type Place } from './slots.ts';

/** A layer as the block graph sees it. */
export interface ChainLayer {
  readonly id: string;
  readonly path: string;
  readonly format: string;
  /** a block device, not a file */
  readonly isDevice: boolean;
}

export interface MachineDisks {
  /** per managed disk, from the head down to the root */
  readonly chains: ReadonlyMap<string, readonly ChainLayer[]>;
}

const NODE_PREFIX = 'layer-';

/** The block graph's node for a layer. */
export function nodeName(layer: string): string {
  return `${NODE_PREFIX}${layer}`;
}

/** The layer behind a node, or undefined for a node that isn't a layer. */
export function layerOfNode(node: string): string | undefined {
  return node.startsWith(NODE_PREFIX) ? node.slice(NODE_PREFIX.length) : undefined;
}

/** The name under which QEMU knows a disk's device. */
export function deviceId(disk: string): string {
  return disk === VARIABLE_STORE ? '/machine/system.flash1' : `disk-${disk}`;
}

export function diskArgs(definition: Definition, { chains }: MachineDisks, place: Place): string[] {
  const { disks, emptyDrives = [], controllers = [] } = definition;
  const needsScsi = [...disks, ...emptyDrives].some(({ bus }) => bus === 'scsi');
  return [
    ...(needsScsi && !hasController(controllers, 'scsi')
      ? controllerArgs([{ type: 'scsi', model: 'virtio-scsi-pci' }], place)
      : []),
    ...disks.flatMap((disk) => {
      const chain = chains.get(disk.name);
      const nodes = chain === undefined ? [plainNode(disk)] : chainNodes(chain, disk);
      const drive = chain?.[0] === undefined ? plainNodeName(disk) : nodeName(chain[0].id);
      return [
        ...nodes.flatMap((node) => ['-blockdev', JSON.stringify(node)]),
        ...diskDevice(definition, disk, drive, place),
      ];
    }),
    ...emptyDrives.flatMap((drive) =>
      device({
        driver: drive.bus === 'scsi' ? 'scsi-cd' : 'ide-cd',
        id: deviceId(drive.name),
        ...identity(drive),
        ...(drive.bootOrder === undefined ? {} : { bootindex: drive.bootOrder }),
        ...drivePlace(drive.bus, drive.address),
      }),
    ),
  ];
}

/** The block graph's node for a disk that isn't layered. */
export function plainNodeName(disk: DiskDefinition): string {
  return `plain-${disk.name}`;
}

/** A disk that isn't layered: read-only media, disks that images don't hold, and formats that can't carry an overlay. */
function plainNode(disk: DiskDefinition): Record<string, unknown> {
  const driver = disk.path.startsWith('/dev/') ? 'host_device' : 'file';
  return {
    driver: disk.format,
    'node-name': plainNodeName(disk),
    'read-only': disk.readonly,
    ...(disk.discard === undefined ? {} : { discard: disk.discard }),
    ...nodeOptions(disk).format,
    file: { driver, filename: disk.path, ...nodeOptions(disk).file },
  };
}

/** Root first, since a node can only stand on one that is there. */
function chainNodes(chain: readonly ChainLayer[], disk: DiskDefinition): Record<string, unknown>[] {
  return chain
    .map((layer, depth) => {
      const parent = chain[depth + 1];
      return {
        driver: layer.format,
        'node-name': nodeName(layer.id),
        'read-only': depth > 0,
        discard: disk.discard ?? 'unmap',
        ...nodeOptions(disk).format,
        file: {
          driver: layer.isDevice ? 'host_device' : 'file',
          filename: layer.path,
          ...nodeOptions(disk).file,
        },
        // The root may be a qcow2 over something the user keeps: there QEMU follows the file's own header.
        ...(parent === undefined ? {} : { backing: nodeName(parent.id) }),
      };
    })
    .toReversed();
}

/** How each node of a disk's chain is opened. */
function nodeOptions({ cache, detectZeroes, io }: DiskDefinition): NodeOptions {
  const both = cache === undefined ? {} : { cache: cacheOptions(cache) };
  return {
    format: { ...both, ...(detectZeroes === undefined ? {} : { 'detect-zeroes': detectZeroes }) },
    file: { ...both, ...(io === undefined ? {} : { aio: io }) },
  };
}

/** A new head is opened as the rest of its disk's chain is. */
export function openedAs(disk: DiskDefinition | undefined): { discard?: boolean; options?: NodeOptions } {
  return disk === undefined ? {} : { discard: disk.discard !== 'ignore', options: nodeOptions(disk) };
}

type Cache = NonNullable<DiskDefinition['cache']>;

/** The host's half of a cache mode, after the table in qemu-system(1), `cache=`. */
function cacheOptions(cache: Cache): CacheOptions {
  return { direct: cache === 'none' || cache === 'directsync', 'no-flush': cache === 'unsafe' };
}

/** The guest's half: whether it sees a cache that it must flush. */
function writeCache(cache: Cache): 'on' | 'off' {
  return cache === 'writethrough' || cache === 'directsync' ? 'off' : 'on';
}

function diskDevice(definition: Definition, disk: DiskDefinition, drive: string, place: Place): string[] {
  // Those without an address have the next one of their bus.
  const number = definition.disks
    .filter((other) => other.bus === disk.bus && other.address === undefined)
    .indexOf(disk);
  const isCd = disk.device === undefined ? disk.readonly && disk.format === 'raw' : disk.device === 'cdrom';
  const common = {
    id: deviceId(disk.name),
    drive,
    ...bootIndex(definition, disk),
    ...(disk.cache === undefined || isCd ? {} : { 'write-cache': writeCache(disk.cache) }),
    ...identity(disk),
  };
  switch (disk.bus) {
    case 'virtio':
      return device({
        driver: 'virtio-blk-pci',
        ...common,
        ...(disk.serial === undefined ? { serial: disk.name } : {}),
        ...place(disk.address, SLOT.firstDisk + number),
      });
    case 'nvme': {
      const { 'write-cache': _, ...properties } = { 'write-cache': undefined, ...common };
      return device({
        driver: 'nvme',
        ...properties,
        serial: disk.serial || disk.name, // it can't be without
        ...place(disk.address, SLOT.lastNvme - number),
      });
    }
    case 'sata':
      return device({
        driver: isCd ? 'ide-cd' : 'ide-hd',
        ...common,
        ...drivePlace('sata', disk.address ?? `0:0:0:${number}`),
      });
    case 'ide':
      return device({
        driver: isCd ? 'ide-cd' : 'ide-hd',
        ...common,
        ...drivePlace('ide', disk.address ?? `0:${number >> 1}:0:${number & 1}`),
      });
    case 'scsi':
      return device({
        driver: isCd ? 'scsi-cd' : 'scsi-hd',
        ...common,
        ...(disk.address === undefined
          ? { bus: 'scsi.0', 'scsi-id': number }
          : drivePlace('scsi', disk.address)),
      });
    case 'pflash':
      return []; // a part of the machine: see firmware.ts
    default:
      return disk.bus satisfies never;
  }
}

/** Disks are booted from as they come, unless the definition orders its devices. */
function bootIndex(
  { disks, networks, emptyDrives = [] }: Definition,
  disk: DiskDefinition,
): { bootindex?: number } {
  if (disk.bootOrder !== undefined) return { bootindex: disk.bootOrder };
  const isOrdered = [...disks, ...networks, ...emptyDrives].some(({ bootOrder }) => bootOrder !== undefined);
  return isOrdered ? {} : { bootindex: disks.indexOf(disk) + 1 };
}

function identity({
  serial,
  deviceId: id,
}: Pick<DiskDefinition, 'serial' | 'deviceId'>): Record<string, string> {
  return {
    ...(serial === undefined || serial === '' ? {} : { serial }),
    ...(id === undefined ? {} : { device_id: id }),
  };
}

/** @param address controller, bus, target and unit */
function drivePlace(bus: 'sata' | 'ide' | 'scsi', address: string): Record<string, unknown> {
  const [controller = 0, channel = 0, target = 0, unit = 0] = address.split(':').map(Number);
  if (bus === 'scsi')
    return { bus: `${controllerId('scsi', controller)}.0`, channel, 'scsi-id': target, lun: unit };
  if (bus === 'ide') return { bus: `ide.${channel}`, unit };
  return { bus: controller === 0 ? `ide.${unit}` : `${controllerId('sata', controller)}.${unit}` };
}
