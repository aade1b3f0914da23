/** Memory of the host, as /proc/meminfo tells of it. */
import { readFile } from 'node:fs/promises';
import { ok, type Finding } from './check.ts';

const CURE =
  'as root, before memory is fragmented: sysctl vm.nr_hugepages=N; with 2 MiB pages N is half of the MiB wanted';

export async function hugePages(): Promise<Finding> {
  const info = parseMeminfo(await readFile('/proc/meminfo', 'utf8'));
  const total = info.get('HugePages_Total') ?? 0;
  const brings = 'a guest on them is captured in the background without a pause that grows with its memory';
  if (total === 0) return ok(`none set aside; ${brings}`, CURE);
  const pageMiB = (info.get('Hugepagesize') ?? 0) / 1024;
  return ok(`${total} of ${pageMiB} MiB set aside, ${info.get('HugePages_Free') ?? 0} free; ${brings}`, CURE);
}

export async function freeMemory(): Promise<Finding> {
  const kibibytes = parseMeminfo(await readFile('/proc/meminfo', 'utf8')).get('MemAvailable') ?? 0;
  return ok(`${(kibibytes / 1024 ** 2).toFixed(1)} GiB available`);
}

/** Sizes in KiB, counts as they are. */
export function parseMeminfo(text: string): ReadonlyMap<string, number> {
  return new Map(
    [...text.matchAll(/^([\w()]+):\s+(\d+)/gm)].map(([, name = '', value]) => [name, Number(value)]),
  );
}
