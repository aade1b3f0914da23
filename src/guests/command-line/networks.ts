/** Network cards and what they are plugged into. */
import type { NetworkDefinition } from '../definition.ts';
import { device } from './arguments.ts';
import { SLOT, type Place } from './slots.ts';

export function networkArgs(network: NetworkDefinition, index: number, place: Place): string[] {
  const id = `net${index}`;
  const netdev = {
    user: { type: 'user', id },
    bridge: { type: 'bridge', id, br: network.bridge },
    tap: { type: 'tap', id, ifname: network.tap, script: 'no', downscript: 'no' },
    // The other end of a `user` network has state of its own in the stream, and must be there when that is loaded.
    'cut-user': { type: 'user', id, restrict: true },
    'lone-tap': { type: 'tap', id, ifname: `trial${index}`, script: 'no', downscript: 'no' },
  }[network.type];
  return [
    '-netdev',
    JSON.stringify(netdev),
    ...device({
      driver: driverOf(network.model ?? 'virtio'),
      id: `${id}-device`,
      netdev: id,
      mac: network.mac,
      ...(network.bootOrder === undefined ? {} : { bootindex: network.bootOrder }),
      ...(network.mtu === undefined ? {} : { host_mtu: network.mtu }),
      ...place(network.address, SLOT.firstNetwork + index),
    }),
  ];
}

function driverOf(model: NonNullable<NetworkDefinition['model']>): string {
  return model.startsWith('virtio') ? model.replace('virtio', 'virtio-net-pci') : model;
}
