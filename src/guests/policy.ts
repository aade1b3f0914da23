/** What holds for a guest when the host boots and shuts down: its own word, else the host's settings, else the default. */
import type { Policy } from '../api/schemas.ts';
import type { GuestRecord } from '../catalog/guests.ts';
import { storedDefinition } from './definition.ts';
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
  return { ...DEFAULT_POLICY, ...host.policy, ...storedDefinition(guest).policy };
}
