/** A guest's network cards and what they are plugged into. */
import { randomBytes } from 'node:crypto';
import Type, { type Static } from 'typebox';
import { PciAddress } from './addresses.ts';
import { invalid, OneOf, strict } from './schema.ts';

/** Slots of the root bus are set aside for so many, so that addresses never move. */
export const MAX_NETWORKS = 6;

/** The card; what isn't said is a virtio card that is not booted from. */
const details = {
  model: Type.Optional(
    OneOf(
      'virtio',
      'virtio-transitional',
      'virtio-non-transitional',
      'e1000',
      'e1000e',
      'igb',
      'rtl8139',
      'vmxnet3',
    ),
  ),
  mtu: Type.Optional(Type.Integer({ minimum: 68, maximum: 65_535 })),
  bootOrder: Type.Optional(Type.Integer({ minimum: 1, maximum: 100 })),
  address: Type.Optional(PciAddress),
} as const;

export const NetworkInput = Type.Object(
  {
    type: OneOf('user', 'bridge', 'tap'),
    mac: Type.Optional(Type.String({ pattern: '^([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}$' })),
    bridge: Type.Optional(Type.String({ pattern: '^[A-Za-z0-9_.-]{1,15}$' })),
    tap: Type.Optional(Type.String({ pattern: '^[A-Za-z0-9_.-]{1,15}$' })),
    ...details,
  },
  strict,
);

type NetworkInput = Static<typeof NetworkInput>;
type Details = { readonly [Key in keyof typeof details]?: NetworkInput[Key] };

export interface NetworkDefinition extends Details {
  /** the last two are for machines that are only tried out: nothing beyond QEMU can be reached, or a tap device that is alone */
  readonly type: 'user' | 'bridge' | 'tap' | 'cut-user' | 'lone-tap';
  readonly mac: string;
  readonly bridge?: string;
  readonly tap?: string;
}

export function pinNetwork(network: NetworkInput): NetworkDefinition {
  return { ...network, mac: (network.mac ?? randomMac()).toLowerCase() };
}

/** @throws StasisError `invalid-definition` */
export function checkNetwork(network: NetworkDefinition): void {
  if (network.type === 'bridge' && network.bridge === undefined)
    throw invalid('a bridge network needs `bridge: NAME`');
  if (network.type === 'tap' && network.tap === undefined) throw invalid('a tap network needs `tap: NAME`');
  if (network.mtu !== undefined && !(network.model ?? 'virtio').startsWith('virtio'))
    throw invalid(`a network card ${network.model} is not told an mtu; only a virtio card is`);
}

/** In QEMU's own range, locally administered by assignment. */
export function randomMac(): string {
  return ['52', '54', '00', ...[...randomBytes(3)].map((byte) => byte.toString(16).padStart(2, '0'))].join(
    ':',
  );
}
