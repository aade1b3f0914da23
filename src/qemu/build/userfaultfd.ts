import { access, constants, readFile } from 'node:fs/promises';

/**
 * Whether the QEMUs that this process starts may use userfaultfd for faults of the kernel too, as lazy restore and
 * background capture need it: as root, where all may (vm.unprivileged_userfaultfd), or by its device.
 */
export async function mayUseUserfaultfd(): Promise<boolean> {
  if (process.getuid?.() === 0) return true;
  const sysctl = await readFile('/proc/sys/vm/unprivileged_userfaultfd', 'utf8').catch(() => '0');
  if (sysctl.trim() === '1') return true;
  try {
    await access('/dev/userfaultfd', constants.R_OK | constants.W_OK);
    return true;
  } catch {
    return false;
  }
}
