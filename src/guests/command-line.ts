/**
 * A pinned definition as QEMU's command line. Every device has a fixed address, so that a restored guest finds each
 * one where it was, and every layer of every disk is a node of the block graph under a name made from its id, so
 * that a daemon that comes back can ask QEMU what its disks stand on.
 */
import { device, socketChardev } from './command-line/arguments.ts';
import { diskArgs, type MachineDisks } from './command-line/disks.ts';
import { firmwareArgs, tpmArgs } from './command-line/firmware.ts';
import { machineArgs } from './command-line/machine.ts';
import { networkArgs } from './command-line/networks.ts';
import { hasBridge, sandboxArgs } from './command-line/sandbox.ts';
import { placesOf, type Place } from './command-line/slots.ts';
import type { Definition } from './definition.ts';
import { bridgeArgs } from './devices/bridges.ts';
import { AGENT_CHARDEV, AGENT_SOCKET, channelArgs } from './devices/channels.ts';
import { controllerArgs, hasController } from './devices/controllers.ts';
import { graphicsArgs, isSpice } from './devices/graphics.ts';
import { helperArgs } from './devices/helpers.ts';
import { inputArgs, redirectionArgs, type Input } from './devices/inputs.ts';
import { soundArgs } from './devices/sound.ts';

export {
  deviceId,
  layerOfNode,
  nodeName,
  openedAs,
  plainNodeName,
  type ChainLayer,
  type MachineDisks,
} from './command-line/disks.ts';

export { AGENT_CHARDEV, AGENT_SOCKET, hasBridge };
export const SERIAL_SOCKET = 'serial.sock';

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
  const place = placesOf(definition.machine);
  return [
    ...['-name', `${definition.name},debug-threads=on`, '-uuid', definition.uuid],
    ...machineArgs(definition, memory),
    ...['-nodefaults', '-no-user-config', '-display', 'none', '-msg', 'timestamp=on'],
    // A guest that powers itself off stays as a process until Stasis has seen it: a crash can be told from it.
    ...['-no-shutdown', '-S'],
    ...sandboxArgs(definition),
    ...firmwareArgs(definition, disks),
    ...bootArgs(definition),
    ...bridgeArgs(definition.bridges ?? [], place),
    ...controllerArgs(definition.controllers ?? [], place),
    ...generationArgs(definition),
    ...serialArgs(definition),
    ...agentArgs(definition, place),
    ...tpmArgs(definition),
    ...displayArgs(definition, place),
    ...diskArgs(definition, disks, place),
    ...definition.networks.flatMap((network, index) => networkArgs(network, index, place)),
    ...(definition.sound === undefined ? [] : soundArgs(definition.sound, place)),
    ...helperArgs(definition, place),
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

/** The agent's channel and all others, with a controller unless the definition has one. */
function agentArgs({ agent, channels = [], controllers = [], graphics }: Definition, place: Place): string[] {
  const isNeeded = (agent || channels.length > 0) && !hasController(controllers, 'channels');
  return [
    ...(isNeeded ? controllerArgs([{ type: 'channels' }], place) : []),
    ...channelArgs(channels, agent, isSpice(graphics)),
  ];
}

/** A guest with a display has a pointer that knows where it is, unless the definition says which inputs there are. */
function displayArgs(definition: Definition, place: Place): string[] {
  const { graphics, video, controllers = [], redirections = [] } = definition;
  const inputs = definition.inputs ?? (graphics === 'none' ? [] : [TABLET]);
  const needsUsb = inputs.some(({ bus }) => bus === 'usb') || redirections.length > 0;
  return [
    ...graphicsArgs(graphics, video, place),
    ...(needsUsb && !hasController(controllers, 'usb')
      ? controllerArgs([{ type: 'usb', model: 'qemu-xhci' }], place)
      : []),
    ...inputArgs(inputs, place),
    ...redirectionArgs(redirections),
  ];
}

const TABLET: Input = { type: 'tablet', bus: 'usb', address: '0:1' };
