/**
 * QEMU's own sandbox, a seccomp filter of its: what a guest makes of a QEMU that it broke out into should be as little as can be.
 * See qemu-options.hx and system/qemu-seccomp.c of QEMU for what each key forbids.
 */
import type { Definition } from '../definition.ts';

/** Whether QEMU starts the helper that plugs a card into a bridge. */
export function hasBridge({ networks }: Definition): boolean {
  return networks.some(({ type }) => type === 'bridge');
}

/**
 * Comes before `qemu.args`, so that a definition may have it otherwise. A bridge is entered by a helper with root's rights that
 * QEMU starts after its sandbox is there.
 */
export function sandboxArgs(definition: Definition): string[] {
  const helper = hasBridge(definition) ? 'allow' : 'deny';
  return ['-sandbox', `on,obsolete=deny,elevateprivileges=${helper},spawn=${helper},resourcecontrol=deny`];
}
