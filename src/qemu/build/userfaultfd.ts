import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { promisify } from 'node:util';
import type { QemuBinary } from './binary.ts';

/** Kernels from 6.1 on have it; before, only the system call and its switch. */
export const USERFAULTFD = '/dev/userfaultfd';

/**
 * Whether QEMU, as whoever it is started as, may use userfaultfd for faults of the kernel too, as lazy restore and
 * background capture need it: as root, where all may (vm.unprivileged_userfaultfd), or by its device.
 */
export async function mayUseUserfaultfd({ startedBy }: Pick<QemuBinary, 'startedBy'>): Promise<boolean> {
  if (process.getuid?.() === 0 && startedBy.length === 0) return true;
  const sysctl = await readFile('/proc/sys/vm/unprivileged_userfaultfd', 'utf8').catch(() => '0');
  if (sysctl.trim() === '1') return true;
  try {
    const [program, ...args] = [...startedBy, 'test', '-r', USERFAULTFD, '-a', '-w', USERFAULTFD];
    await promisify(execFile)(program, args);
    return true;
  } catch {
    return false; // status 1: it may not
  }
}
