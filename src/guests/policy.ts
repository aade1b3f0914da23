/** What holds for a guest when the host boots and shuts down: its own word, else the host's settings, else the default. */
import type { Policy } from '../api/schemas.ts';
import type { GuestRecord } from '../catalog/guests.ts';
import { storedDefinition, type Definition } from './definition.ts';
import type { Host } from './host.ts';

const DEFAULT_POLICY: Policy = {
  onBoot: 'none',
  onShutdown: 'save',
  order: 100,
  delaySeconds: 0,
  timeLimitSeconds: 300,
  fallback: 'none',
};

export function policyOf(host: Host, guest: GuestRecord): Policy {
  return policyIn(host, storedDefinition(guest));
}

/** The same of a definition that was read already. */
export function policyIn(host: Host, { policy }: Definition): Policy {
  return { ...DEFAULT_POLICY, ...host.policy, ...policy };
}
