/** The host's memory: what is free, and what of it a guest has. */
import { readFile, stat } from 'node:fs/promises';
import { errnoOf, StasisError } from '../errors.ts';
import { isArriving } from '../qemu/migration.ts';
import { readPagerRequest } from '../qemu/pager/pager-files.ts';
import type { QemuProcess } from '../qemu/process/process.ts';
import { memoryFileOf } from '../qemu/restore/mapped.ts';
import type { Definition } from './definition.ts';

export const BASE_PAGE_BYTES = 4096;

/** What the host could give to a new process, in bytes (`MemAvailable` of proc_meminfo(5)). */
export async function availableBytes(): Promise<number> {
  const [, kibibytes = '0'] =
    /^MemAvailable:\s+(\d+) kB$/m.exec(await readFile('/proc/meminfo', 'utf8')) ?? [];
  return Number(kibibytes) * 1024;
}

/** Huge pages that are set aside and promised to nobody, in bytes. @param pageBytes which pool */
export async function freeHugePageBytes(pageBytes: number): Promise<number> {
  const pool = `/sys/kernel/mm/hugepages/hugepages-${pageBytes / 1024}kB`;
  const [free, reserved] = await Promise.all(
    ['free_hugepages', 'resv_hugepages'].map((name) => readCount(`${pool}/${name}`)),
  );
  return ((free ?? 0) - (reserved ?? 0)) * pageBytes;
}

/** @throws StasisError `no-memory` when the guest's huge pages aren't there, with how to set them aside */
export async function refuseWithoutHugePages(guestName: string, definition: Definition): Promise<void> {
  const { hugePageBytes, memoryBytes } = definition;
  if (hugePageBytes === undefined) return;
  const freeBytes = await freeHugePageBytes(hugePageBytes);
  if (freeBytes >= memoryBytes) return;
  const [needed, free] = [memoryBytes, freeBytes].map((bytes) => Math.floor(bytes / hugePageBytes));
  const pool = `/sys/kernel/mm/hugepages/hugepages-${hugePageBytes / 1024}kB/nr_hugepages`;
  throw new StasisError(
    'no-memory',
    `guest ${guestName} needs ${needed} huge pages of ${hugePageBytes / 1024 ** 2} MiB and ${free} are free; set more aside (as root: raise the number in ${pool}, before memory is fragmented), or define it without \`hugepages\``,
    { guest: guestName, details: { neededPages: needed, freePages: free, pageBytes: hugePageBytes } },
  );
}

/**
 * How much of a guest's memory a capture may have to write, in bytes: at most what the process has touched (second
 * field of `/proc/PID/statm`, in pages), and what is in the file that its memory is mapped from, or still comes from. Huge pages count
 * whole: the kernel doesn't tell of them there.
 */
export async function residentGuestBytes(
  { pid, qmp, runDirectory }: QemuProcess,
  { memoryBytes, hugePageBytes }: Definition,
): Promise<number> {
  if (hugePageBytes !== undefined) return memoryBytes;
  const touched = await touchedBytes(pid);
  const isLazy = isArriving((await qmp.execute('query-migrate')).status);
  const source = isLazy ? (await readPagerRequest(runDirectory))?.file : await memoryFileOf(qmp);
  return Math.min(memoryBytes, touched + (await storedBytes(source)));
}

async function touchedBytes(pid: number): Promise<number> {
  try {
    const [, pages = '0'] = (await readFile(`/proc/${pid}/statm`, 'utf8')).split(' ');
    return Number(pages) * BASE_PAGE_BYTES;
  } catch (error) {
    // It has just ended: whatever is asked of it next says so, and how.
    if (['ENOENT', 'ESRCH'].includes(errnoOf(error) ?? '')) return 0;
    throw error;
  }
}

async function storedBytes(file: string | undefined): Promise<number> {
  if (file === undefined) return 0;
  try {
    return (await stat(file)).blocks * 512;
  } catch (error) {
    // Its image may be gone, and the file with it: then only the guest still has it, of whatever size.
    if (errnoOf(error) === 'ENOENT') return Infinity;
    throw error;
  }
}

async function readCount(path: string): Promise<number> {
  try {
    return Number(await readFile(path, 'utf8'));
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return 0; // a kernel without huge pages of that size
    throw error;
  }
}
