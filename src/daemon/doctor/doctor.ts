/** What this host can do, proven where that is possible, what each thing is for, and how to enable what it can't. */
import { messageOf } from '../../errors.ts';
import type { Host } from '../../guests/host.ts';
import type { Health } from '../health.ts';
import type { DaemonContext } from '../views.ts';
import { degraded, ok, type Check, type Finding } from './check.ts';
import { hostClock } from './clock.ts';
import { tpm, uefi } from './firmware.ts';
import { freeMemory, hugePages } from './memory.ts';
import { kvm, otherBuilds, qemu, qemuFeatures, qemuUser, userfaultfd } from './qemu.ts';
import { directIo, lvm, sharedBlocks } from './storage.ts';

/** A check's name, what of Stasis it is for, and the check. */
type Row = readonly [name: string, serves: string, examine: (host: Host) => Promise<Finding>];

const CHECKS: readonly Row[] = [
  ['QEMU', 'everything', qemu],
  ['other QEMUs', 'guests that are to stay with another version', otherBuilds],
  ['QEMU features', 'the ways to capture and restore memory', qemuFeatures],
  ["QEMU's user", 'what a guest could do that broke out', qemuUser],
  ['KVM', 'guests at full speed', kvm],
  ['userfaultfd', 'background capture, lazy restore', userfaultfd],
  ['direct I/O', 'stopped save at the speed of the disk', directIo],
  [
    'shared blocks',
    'copies of disks without overlays: of this file system; each disk is tried when it is defined',
    sharedBlocks,
  ],
  ['LVM', 'disks on logical volumes: not used yet', lvm],
  ['UEFI firmware', 'guests with `firmware: uefi`', uefi],
  ['TPM', 'guests with `tpm: true`', tpm],
  ['huge pages', 'background capture with a short pause: not used yet', hugePages],
  ['memory', 'restoring beside the guest that runs, clones', freeMemory],
  ["host's clock", 'the clock of restored guests', hostClock],
];

/** What `/readyz` says. */
async function readiness(health: Health): Promise<Finding> {
  const { ready, reasons, remarks } = await health.readiness();
  const told = [...reasons, ...remarks].join('; ');
  if (!ready)
    return { status: 'missing', message: told, cure: 'see the log of the daemon; make room for its home' };
  return told === '' ? ok('it can be written, and there is space left') : degraded(told, 'stasis ops');
}

/** Runs all checks. One that can't be made says so, and keeps no other from its answer. */
export async function examine({ host, health }: DaemonContext): Promise<Check[]> {
  const rows: Row[] = [...CHECKS, ['home', 'everything', () => readiness(health)]];
  return Promise.all(
    rows.map(async ([name, serves, look]) => ({ name, serves, ...(await answered(() => look(host))) })),
  );
}

async function answered(look: () => Promise<Finding>): Promise<Finding> {
  try {
    return await look();
  } catch (error) {
    return { status: 'degraded', message: `unknown: ${messageOf(error)}`, cure: null };
  }
}
