/** The machine that was measured on: no figure means anything without it. */
import { cpus, release, totalmem } from 'node:os';
import { findQemu } from '../src/qemu/build/binary.ts';
import type { Machine } from './figures.ts';
import { Libvirt } from './peers/libvirt.ts';
import { run } from './peers/peer.ts';

/** @param directory where the guests' files are */
export async function describeMachine(directory: string): Promise<Machine> {
  const fileSystem = (await run('df', ['--output=fstype', directory])).stdout.trim().split('\n').at(-1);
  return {
    cpu: cpus()[0]?.model ?? 'unknown',
    cores: cpus().length,
    memoryGiB: Math.round(totalmem() / 1024 ** 3),
    kernel: release(),
    fileSystem: fileSystem ?? 'unknown',
    qemu: (await findQemu()).versionText,
    accelerator: 'TCG',
    libvirt: (await Libvirt.whyNot()) === undefined ? await Libvirt.version() : null,
  };
}

export function machineText(machine: Machine): string {
  const { cpu, cores, memoryGiB, kernel, fileSystem, qemu, accelerator, libvirt } = machine;
  const beside = libvirt === null ? '' : `, libvirt ${libvirt}`;
  return `${cores} cores (${cpu}), ${memoryGiB} GiB, Linux ${kernel}, ${fileSystem}, QEMU ${qemu} under ${accelerator}${beside}`;
}
