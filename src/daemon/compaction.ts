/**
 * Every live save makes a chain one longer, and every layer is one more that a read may go through. Chains that grow past
 * the depth of the settings are shortened after the operation that made them so: slowly, and as long as nothing else is to
 * be done to the guest. A stopped guest is left alone: its disks could only be copied at full speed.
 */
import { getGuestByUuid } from '../catalog/guests.ts';
import { headSummaries } from '../catalog/layers.ts';
import { StasisError } from '../errors.ts';
import type { Host } from '../guests/host.ts';
import { compactProcedure } from '../images/compact.ts';
import type { OperationEngine } from '../operations/engine.ts';
import type { Settings } from './settings.ts';

/** Looks after all guests that run now, and after each operation at its guest. */
export function compactInBackground(host: Host, engine: OperationEngine, { disks }: Settings): void {
  const { compactAboveDepth: depth, compactBytesPerSecond: bytesPerSecond } = disks;
  if (depth === null) return;
  const look = (guest: string) =>
    compactIfDeep(host, engine, guest, { depth, bytesPerSecond }).catch((error: unknown) => {
      const { code, message } = StasisError.from(error);
      // The operation that has it is followed by another look.
      if (code !== 'busy') host.log.warn({ guest, code }, `a chain can not be shortened: ${message}`);
    });
  engine.onEnded(({ kind, guest }) => {
    if (kind !== 'compact' && guest !== null) void look(guest);
  });
  for (const guest of host.supervisor.liveGuests()) void look(guest);
}

async function compactIfDeep(
  host: Host,
  engine: OperationEngine,
  guest: string,
  { depth, bytesPerSecond }: { readonly depth: number; readonly bytesPerSecond: number },
): Promise<void> {
  if (host.supervisor.find(guest) === undefined) return;
  const deep = (await headSummaries(host.catalog, [guest])).find(({ layers }) => layers > depth);
  if (deep === undefined) return;
  const { name } = await getGuestByUuid(host.catalog, guest);
  await engine.submit(compactProcedure(host), {
    kind: 'compact',
    subject: { guest, guestName: name, image: null },
    args: { disk: deep.disk, bytesPerSecond },
  });
}
