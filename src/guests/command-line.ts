/**
 * A pinned definition as QEMU's command line. Every device has a fixed address, so that a restored guest finds each
 * one where it was, and every layer of every disk is a node of the block graph under a name made from its id, so
 * that a daemon that comes back can ask QEMU what its disks stand on.
 */
import { MAIN_MEMORY } from '../qemu/restore.ts';
import { device, socketChardev } from './command-line/arguments.ts';
import { diskArgs, type MachineDisks } from './command-line/disks.ts';
import { networkArgs } from './command-line/networks.ts';
import { SLOT, type Address } from './command-line/slots.ts';
import type { Definition } from './definition.ts';

export { deviceId, layerOfNode, nodeName, type ChainLayer, type MachineDisks } from './command-line/disks.ts';

export const SERIAL_SOCKET = 'serial.sock';
export const AGENT_SOCKET = 'agent.sock';
/** The name under which QEMU knows the agent's channel. */
export const AGENT_CHARDEV = 'agent0';
const VNC_SOCKET = 'vnc.sock';

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
