/** What this host can do, proven where that is possible, and how to enable what it can't. */
import { readFile } from 'node:fs/promises';
import type { Doctor } from '../api/schemas.ts';
import { errnoOf } from '../errors.ts';
import type { Host } from '../guests/host.ts';
import { proveKvm } from '../qemu/accelerator.ts';
import { mayUseUserfaultfd } from '../qemu/userfaultfd.ts';

type Check = Doctor['checks'][number];

/** Runs all checks; each says what it found and, when it isn't well, the cure. */
export async function examine(host: Host): Promise<Check[]> {
  return Promise.all([qemu(host), kvm(host), userfaultfd(), hugePages(), memory()]);
}

function qemu({ qemu: { path, versionText } }: Host): Promise<Check> {
  return Promise.resolve({ name: 'QEMU', status: 'ok', message: `${versionText} at ${path}`, cure: null });
}

async function kvm(host: Host): Promise<Check> {
  const { works, reason } = await proveKvm(host.qemu);
  return works
    ? { name: 'KVM', status: 'ok', message: 'proven by running a few instructions', cure: null }
    : {
        name: 'KVM',
        status: 'degraded',
        message: `${reason}; guests run under TCG, many times slower`,
        cure: 'enable virtualization in the firmware, load kvm_intel or kvm_amd, and let the daemon open /dev/kvm (group kvm)',
      };
}

async function userfaultfd(): Promise<Check> {
  const name = 'userfaultfd';
  if (process.getuid?.() === 0) return { name, status: 'ok', message: 'the daemon runs as root', cure: null };
  if (await mayUseUserfaultfd()) return { name, status: 'ok', message: 'allowed', cure: null };
  return {
    name,
    status: 'degraded',
    message: 'not allowed: background capture and lazy restore will not be possible',
    cure: 'give the daemon\'s group access with a udev rule: KERNEL=="userfaultfd", GROUP="kvm", MODE="0660"',
  };
}

async function hugePages(): Promise<Check> {
  const total = Number(await readFirstLine('/proc/sys/vm/nr_hugepages'));
  return {
    name: 'huge pages',
    status: 'ok',
    message: total > 0 ? `${total} set aside` : 'none set aside; nothing needs them yet',
    cure: null,
  };
}

async function memory(): Promise<Check> {
  const [, kibibytes = '0'] =
    /^MemAvailable:\s+(\d+) kB$/m.exec(await readFile('/proc/meminfo', 'utf8')) ?? [];
  return {
    name: 'memory',
    status: 'ok',
    message: `${(Number(kibibytes) / 1024 ** 2).toFixed(1)} GiB available`,
    cure: null,
  };
}

async function readFirstLine(path: string): Promise<string | undefined> {
  try {
    return (await readFile(path, 'utf8')).split('\n')[0];
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}
