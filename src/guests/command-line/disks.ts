/** Disks: every layer is a node of the block graph, the head of a chain is what a device writes to. */
import type { Definition, DiskDefinition } from '../definition.ts';
import { device } from './arguments.ts';
import { SLOT, type Address } from './slots.ts';

/** A layer as the block graph sees it. */
export interface ChainLayer {
  readonly id: string;
  readonly path: string;
  readonly format: string;
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
  return `disk-${disk}`;
}

export function diskArgs(
  definition: Definition,
  { chains }: MachineDisks,
  at: (slot: number) => Address,
): string[] {
  const scsi = definition.disks.some((disk) => disk.bus === 'scsi');
  return [
    ...(scsi ? device({ driver: 'virtio-scsi-pci', id: 'scsi', ...at(SLOT.scsi) }) : []),
    ...definition.disks.flatMap((disk, index) => {
      const chain = chains.get(disk.name);
      const nodes = chain === undefined ? [plainNode(disk)] : chainNodes(chain);
      const drive = chain?.[0] === undefined ? plainNodeName(disk) : nodeName(chain[0].id);
      return [
        ...nodes.flatMap((node) => ['-blockdev', JSON.stringify(node)]),
        ...diskDevice(definition, disk, index, drive, at),
      ];
    }),
  ];
}

function plainNodeName(disk: DiskDefinition): string {
  return `plain-${disk.name}`;
}

/** A disk that isn't layered: read-only media, and formats that can't carry an overlay. */
function plainNode(disk: DiskDefinition): Record<string, unknown> {
  return {
    driver: disk.format,
    'node-name': plainNodeName(disk),
    'read-only': disk.readonly,
    file: { driver: 'file', filename: disk.path },
  };
}

/** Root first, since a node can only stand on one that is there. */
function chainNodes(chain: readonly ChainLayer[]): Record<string, unknown>[] {
  return chain
    .map((layer, depth) => {
      const parent = chain[depth + 1];
      return {
        driver: layer.format,
        'node-name': nodeName(layer.id),
        'read-only': depth > 0,
        discard: 'unmap',
        file: { driver: 'file', filename: layer.path },
        // The root may be a qcow2 over something the user keeps: there QEMU follows the file's own header.
        ...(parent === undefined ? {} : { backing: nodeName(parent.id) }),
      };
    })
    .toReversed();
}

function diskDevice(
  definition: Definition,
  disk: DiskDefinition,
  index: number,
  drive: string,
  at: (slot: number) => Address,
): string[] {
  const sameBus = definition.disks.filter((other) => other.bus === disk.bus).indexOf(disk);
  const common = { id: deviceId(disk.name), drive, bootindex: index + 1 };
  const isCd = disk.readonly && disk.format === 'raw';
  switch (disk.bus) {
    case 'virtio':
      return device({
        driver: 'virtio-blk-pci',
        ...common,
        serial: disk.name,
        ...at(SLOT.firstDisk + sameBus),
      });
    case 'sata':
      return device({ driver: isCd ? 'ide-cd' : 'ide-hd', ...common, bus: `ide.${sameBus}` });
    case 'ide':
      return device({
        driver: isCd ? 'ide-cd' : 'ide-hd',
        ...common,
        bus: `ide.${sameBus >> 1}`,
        unit: sameBus & 1,
      });
    case 'scsi':
      return device({ driver: isCd ? 'scsi-cd' : 'scsi-hd', ...common, bus: 'scsi.0', 'scsi-id': sameBus });
    default:
      return disk.bus satisfies never;
  }
}
