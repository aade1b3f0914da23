/** A guest's network cards and what they are plugged into. */
import { randomBytes } from 'node:crypto';
import Type, { type Static } from 'typebox';
import { invalid, OneOf, strict } from './schema.ts';

/** Slots of the root bus are set aside for so many, so that addresses never move. */
export const MAX_NETWORKS = 6;

export const NetworkInput = Type.Object(
  {
    type: OneOf('user', 'bridge', 'tap'),
    mac: Type.Optional(Type.String({ pattern: '^([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}$' })),
    bridge: Type.Optional(Type.String({ pattern: '^[A-Za-z0-9_.-]{1,15}$' })),
    tap: Type.Optional(Type.String({ pattern: '^[A-Za-z0-9_.-]{1,15}$' })),
  },
  strict,
);

export interface NetworkDefinition {
  readonly type: 'user' | 'bridge' | 'tap';
  readonly mac: string;
  readonly bridge?: string;
  readonly tap?: string;
}

export function pinNetwork(network: Static<typeof NetworkInput>): NetworkDefinition {
  return {
    type: network.type,
    mac: (network.mac ?? randomMac()).toLowerCase(),
    ...(network.bridge === undefined ? {} : { bridge: network.bridge }),
    ...(network.tap === undefined ? {} : { tap: network.tap }),
  };
}

/** @throws StasisError `invalid-definition` */
export function checkNetwork(network: NetworkDefinition): void {
  if (network.type === 'bridge' && network.bridge === undefined)
    throw invalid('a bridge network needs `bridge: NAME`');
  if (network.type === 'tap' && network.tap === undefined) throw invalid('a tap network needs `tap: NAME`');
}

/** In QEMU's own range, locally administered by assignment. */
export function randomMac(): string {
  return ['52', '54', '00', ...[...randomBytes(3)].map((byte) => byte.toString(16).padStart(2, '0'))].join(
    ':',
  );
}
