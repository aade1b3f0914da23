/**
 * A start of the daemon is no boot of the host: the kernel's boot id tells them apart. What is known of the boot before
 * tells how that one ended: cleanly when the guests had been ended for it to the last, and none ran that should not have.
 */
import type { CatalogDatabase } from '../catalog/database.ts';
import { listGuests } from '../catalog/guests.ts';
import { insertBoot, lastBoot, type HostBootRecord } from '../catalog/host-boots.ts';
import type { EventLog } from '../operations/event-log.ts';
import { fromStored } from '../stored.ts';

export interface HostBoot {
  readonly id: number;
  /** no daemon of this home has seen it before */
  readonly isNew: boolean;
  /** policies for a boot are still to be carried out */
  readonly isUnsettled: boolean;
}

/** Asked once, at the daemon's start, before it looks for the processes that it knew. */
export async function recognizeBoot(
  catalog: CatalogDatabase,
  events: EventLog,
  bootId: string,
): Promise<HostBoot> {
  const last = await lastBoot(catalog);
  if (last?.bootId === bootId) return { id: last.id, isNew: false, isUnsettled: last.settledAt === null };
  const running = (await listGuests(catalog)).filter(({ instance }) => instance !== null);
  const left = last === undefined ? [] : fromStored<string[]>(last.shutdownLeft);
  const lost = running.filter(({ uuid }) => !left.includes(uuid)).map(({ name }) => name);
  const after = howItEnded(last, lost);
  const seenAt = new Date().toISOString();
  await insertBoot(catalog, {
    bootId,
    seenAt,
    after,
    ran: JSON.stringify(running.map(({ name }) => name)),
    // Of the first one that is known nobody can say that it hasn't been going on for long.
    settledAt: after === 'first' ? seenAt : null,
  });
  await events.publish({
    type: 'daemon',
    action: 'host-boot',
    message: `${WORDS[after]} (boot ${bootId})${lost.length === 0 ? '' : `; when the host went down, these ran: ${lost.join(', ')}`}`,
  });
  const { id } = (await lastBoot(catalog)) ?? { id: 0 };
  return { id, isNew: after !== 'first', isUnsettled: after !== 'first' };
}

const WORDS = {
  first: 'the first boot of the host that is known',
  clean: 'the host has booted after a clean shutdown',
  crash: 'the host has booted after a crash',
} as const satisfies Record<HostBootRecord['after'], string>;

function howItEnded(last: HostBootRecord | undefined, lost: readonly string[]): HostBootRecord['after'] {
  if (last === undefined) return 'first';
  return last.shutdownClean === 1 && lost.length === 0 ? 'clean' : 'crash';
}
