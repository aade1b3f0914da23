/** Which boot of the host this is. */
import { readFile } from 'node:fs/promises';

/** A UUID that the kernel makes at each boot: random(4). */
export const KERNEL_BOOT_ID = '/proc/sys/kernel/random/boot_id';

/** @param file where it stands: the kernel's, or a test's that plays a boot of the host */
export async function readBootId(file: string): Promise<string> {
  return (await readFile(file, 'utf8')).trim();
}
