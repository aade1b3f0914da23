import type { QmpClient } from '../qmp/client.ts';

/** Why a guest can't be captured now. */
export interface CaptureBlocker {
  /** For a person. */
  readonly reason: string;
  /** The guest's device with a disk that nobody captures, and that disk's file. */
  readonly device?: string;
  readonly file?: string;
}

/**
 * What stands in the way of a capture: what QEMU itself can't save (NVMe, VFIO, a mounted 9p share, …: its words),
 * and every writable disk whose head is not among the nodes that the caller is going to capture, or knows not to. Ask right before
 * each save: devices come and go.
 *
 * @param knownHeads node names of the heads that will be captured, and of disks that need not be
 * @throws StasisError `qemu-failed`, `guest-crashed`
 */
export async function captureBlockers(
  qmp: QmpClient,
  knownHeads: ReadonlySet<string>,
): Promise<readonly CaptureBlocker[]> {
  const [migration, disks] = await Promise.all([qmp.execute('query-migrate'), qmp.execute('query-block')]);
  const blockers: CaptureBlocker[] = (migration['blocked-reasons'] ?? []).map((reason) => ({ reason }));
  for (const { inserted, device, qdev } of disks) {
    if (inserted === undefined || inserted.ro || knownHeads.has(inserted['node-name'] ?? '')) continue;
    const name = qdev ?? device;
    blockers.push({
      reason: `the disk ${inserted.file} of device ${name} is writable and not part of the save`,
      device: name,
      file: inserted.file,
    });
  }
  return blockers;
}
