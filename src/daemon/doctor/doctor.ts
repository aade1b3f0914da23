/** What this host can do, proven where that is possible, what each thing is for, and how to enable what it can't. */
import { messageOf } from '../../errors.ts';
import type { Host } from '../../guests/host.ts';
import type { Check, Finding } from './check.ts';
import { hostClock } from './clock.ts';
import { tpm, uefi } from './firmware.ts';
import { freeMemory, hugePages } from './memory.ts';
import { kvm, qemu, qemuFeatures, userfaultfd } from './qemu.ts';
import { directIo, lvm, sharedBlocks } from './storage.ts';

/** A check's name, what of Stasis it is for, and the check. */
type Row = readonly [name: string, serves: string, examine: (host: Host) => Promise<Finding>];

const CHECKS: readonly Row[] = [
  ['QEMU', 'everything', qemu],
  ['QEMU features', 'the ways to capture and restore memory', qemuFeatures],
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

/** Runs all checks. One that can't be made says so, and keeps no other from its answer. */
export async function examine(host: Host): Promise<Check[]> {
  return Promise.all(
    CHECKS.map(async ([name, serves, look]) => ({ name, serves, ...(await answered(() => look(host))) })),
  );
}

async function answered(look: () => Promise<Finding>): Promise<Finding> {
  try {
    return await look();
  } catch (error) {
    return { status: 'degraded', message: `unknown: ${messageOf(error)}`, cure: null };
  }
}
