/**
 * A pinned definition as QEMU's command line. Every device has a fixed address, so that a restored guest finds each
 * one where it was, and every layer of every disk is a node of the block graph under a name made from its id, so
 * that a daemon that comes back can ask QEMU what its disks stand on.
 */
import { MAIN_MEMORY } from '../qemu/restore.ts';
import type { Definition, DiskDefinition, NetworkDefinition } from './definition.ts';

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

export const SERIAL_SOCKET = 'serial.sock';
export const AGENT_SOCKET = 'agent.sock';
/** The name under which QEMU knows the agent's channel. */
export const AGENT_CHARDEV = 'agent0';
export const VNC_SOCKET = 'vnc.sock';

/** PCI slots, fixed for ever: an image taken by any version of Stasis must find its devices. */
const SLOT = {
  graphics: 0x2,
  channels: 0x3,
  scsi: 0x4,
  usb: 0x5,
  firstDisk: 0x8,
  firstNetwork: 0x18,
} as const;

/**
 * Everything but the process's own affairs (QMP socket, pid file), which src/qemu adds. Sockets are relative: the
 * process runs in its run directory. The guest waits for `cont`.
 * @param memory `given` when a restore method brings the memory
 */
export function commandLine(
  definition: Definition,
  disks: MachineDisks,
  memory: 'own' | 'given' = 'own',
): string[] {
  const bus = definition.machine.startsWith('pc-i440fx') ? 'pci.0' : 'pcie.0';
  const at = (slot: number) => ({ bus, addr: `0x${slot.toString(16)}` });
  return [
    ...['-name', `${definition.name},debug-threads=on`, '-uuid', definition.uuid],
    ...['-machine', definition.machine, '-accel', definition.accelerator, '-cpu', definition.cpu],
    ...['-m', `size=${definition.memoryBytes / 1024 ** 2}M`, '-smp', String(definition.cpus)],
    ...['-nodefaults', '-no-user-config', '-display', 'none', '-msg', 'timestamp=on'],
    // Ticks of the hardware clock that came while the guest couldn't take them are given to it afterwards: a system that
    // counts them, as Windows does, doesn't lose time in a pause. Not part of an image: those taken without it load too.
    ...['-rtc', 'base=utc,driftfix=slew'],
    ...(memory === 'own' ? hugePageArgs(definition) : []),
    // A guest that powers itself off stays as a process until Stasis has seen it: a crash can be told from it.
    ...['-no-shutdown', '-S'],
    ...bootArgs(definition),
    ...generationArgs(definition),
    ...serialArgs(definition),
    ...agentArgs(definition, at(SLOT.channels)),
    ...graphicsArgs(definition, at(SLOT.graphics), at(SLOT.usb)),
    ...diskArgs(definition, disks, at),
    ...definition.networks.flatMap((network, index) =>
      networkArgs(network, index, at(SLOT.firstNetwork + index)),
    ),
    ...definition.qemu.args,
  ];
}

type Address = { bus: string; addr: string };

function bootArgs({ boot }: Definition): string[] {
  if (boot === null) return [];
  return [
    '-kernel',
    boot.kernel,
    ...(boot.initrd === undefined ? [] : ['-initrd', boot.initrd]),
    '-append',
    boot.cmdline,
  ];
}

/** Huge pages that the kernel reserves as QEMU starts, so that the guest never finds one missing. */
function hugePageArgs({ memoryBytes, hugePageBytes }: Definition): string[] {
  if (hugePageBytes === undefined) return [];
  const backend = {
    'qom-type': 'memory-backend-memfd',
    id: MAIN_MEMORY,
    size: memoryBytes,
    hugetlb: true,
    hugetlbsize: hugePageBytes,
    share: true,
  };
  return ['-object', JSON.stringify(backend), '-machine', `memory-backend=${MAIN_MEMORY}`];
}

/** After the specification "Virtual Machine Generation ID": Windows and Linux watch it. */
function generationArgs({ generation }: Definition): string[] {
  return generation === undefined ? [] : device({ driver: 'vmgenid', id: 'generation', guid: generation });
}

function serialArgs({ serial }: Definition): string[] {
  if (!serial) return [];
  return [
    ...socketChardev('serial0', SERIAL_SOCKET),
    ...device({ driver: 'isa-serial', id: 'serial0-device', chardev: 'serial0' }),
  ];
}

function agentArgs({ agent }: Definition, address: Address): string[] {
  if (!agent) return [];
  return [
    ...device({ driver: 'virtio-serial-pci', id: 'channels', ...address }),
    ...socketChardev(AGENT_CHARDEV, AGENT_SOCKET),
    ...device({
      driver: 'virtserialport',
      id: 'agent0-device',
      bus: 'channels.0',
      nr: 1,
      chardev: AGENT_CHARDEV,
      name: 'org.qemu.guest_agent.0',
    }),
  ];
}

function graphicsArgs({ graphics }: Definition, screen: Address, usb: Address): string[] {
  if (graphics === 'none') return [];
  return [
    ...device({ driver: 'VGA', id: 'screen', ...screen }),
    ...['-vnc', `unix:${VNC_SOCKET}`],
    ...device({ driver: 'qemu-xhci', id: 'usb', ...usb }),
    ...device({ driver: 'usb-tablet', id: 'tablet', bus: 'usb.0', port: '1' }),
  ];
}

function diskArgs(definition: Definition, { chains }: MachineDisks, at: (slot: number) => Address): string[] {
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

function networkArgs(network: NetworkDefinition, index: number, address: Address): string[] {
  const id = `net${index}`;
  const netdev = {
    user: { type: 'user', id },
    bridge: { type: 'bridge', id, br: network.bridge },
    tap: { type: 'tap', id, ifname: network.tap, script: 'no', downscript: 'no' },
  }[network.type];
  return [
    '-netdev',
    JSON.stringify(netdev),
    ...device({ driver: 'virtio-net-pci', id: `${id}-device`, netdev: id, mac: network.mac, ...address }),
  ];
}

function socketChardev(id: string, path: string): string[] {
  return ['-chardev', `socket,id=${id},path=${path},server=on,wait=off`];
}

function device(properties: Record<string, unknown>): string[] {
  return ['-device', JSON.stringify(properties)];
}
