/**
 * Every live save makes a chain one longer, and every layer is one more that a read may go through and that QEMU opens again
 * in the pause of each save, after the migration had closed it (0.4 ms each). Chains that grow past
 * the depth of the settings are shortened, slowly, when nothing has been done to the guest for a while: a live save in
 * the middle of it would leave what is copied by then in a layer that is pinned, for nothing. A stopped guest is left
 * alone: its disks could only be copied at full speed.
 */
import { getGuestByUuid, hasGuest } from '../catalog/guests.ts';
import { headSummaries } from '../catalog/layers.ts';
import { StasisError } from '../errors.ts';
import type { Host } from '../guests/host.ts';
import { compactProcedure } from '../images/compact.ts';
import type { OperationEngine } from '../operations/engine.ts';
import type { Settings } from './settings.ts';

/** Looks after all guests that run now, and after each operation at its guest. Ends with the daemon. */
export function compactInBackground(host: Host, engine: OperationEngine, { disks }: Settings): void {
  const { compactAboveDepth: depth, compactAfterSeconds, compactBytesPerSecond: bytesPerSecond } = disks;
  if (depth === null) return;
  const quiet = new Map<string, NodeJS.Timeout>();
  const lookLater = (guest: string) => {
    clearTimeout(quiet.get(guest));
    const look = () => {
      quiet.delete(guest);
      void compactIfDeep(host, engine, guest, { depth, bytesPerSecond });
    };
    quiet.set(guest, setTimeout(look, compactAfterSeconds * 1000).unref());
  };
  engine.onEnded(({ kind, guest }) => {
    if (kind !== 'compact' && guest !== null) lookLater(guest);
  });
  for (const guest of host.supervisor.liveGuests()) lookLater(guest);
}

/** Never rejects: it is its own owner. */
async function compactIfDeep(
  host: Host,
  engine: OperationEngine,
  guest: string,
  { depth, bytesPerSecond }: { readonly depth: number; readonly bytesPerSecond: number },
): Promise<void> {
  try {
    if (host.supervisor.find(guest) === undefined || !(await hasGuest(host.catalog, guest))) return;
    const disks = (await headSummaries(host.catalog, [guest])).filter(({ layers }) => layers > depth);
    const { name } = await getGuestByUuid(host.catalog, guest);
    for (const { disk } of disks) {
      const { settled } = await engine.submit(compactProcedure(host), {
        kind: 'compact',
        subject: { guest, guestName: name, image: null },
        args: { disk, bytesPerSecond, unasked: true },
      });
      await settled;
    }
  } catch (error) {
    const { code, message } = StasisError.from(error);
    // Whatever was in its way, or that it gave way to, is an operation that is followed by another look.
    if (code === 'busy' || code === 'cancelled') return;
    host.log.warn({ guest, code }, `a chain can not be shortened: ${message}`);
  }
}
