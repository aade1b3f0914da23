/** Network cards and what they are plugged into. */
import type { NetworkDefinition } from '../definition.ts';
import { device } from './arguments.ts';
import type { Address } from './slots.ts';

export function networkArgs(network: NetworkDefinition, index: number, address: Address): string[] {
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
