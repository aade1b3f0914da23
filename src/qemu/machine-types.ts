import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { Duplex } from 'node:stream';
import { StasisError } from '../errors.ts';
import type { QemuBinary } from './binary.ts';
import type { MachineInfo } from './qmp-commands.ts';
import { QmpClient } from './qmp.ts';

const probes = new Map<string, Promise<readonly MachineInfo[]>>();

/**
 * The machine types that this QEMU can be. Asked once per build of QEMU; a failure is not remembered.
 * @throws StasisError `qemu-failed`, `timeout`
 */
export async function machineTypes(binary: QemuBinary): Promise<readonly MachineInfo[]> {
  const key = `${binary.path}:${binary.modifiedMs}`;
  const probe = probes.get(key) ?? queryMachines(binary);
  probes.set(key, probe);
  try {
    return await probe;
  } catch (error) {
    probes.delete(key);
    throw error;
  }
}

/**
 * The versioned name that a machine type stands for: `q35` → `pc-q35-10.0`. A guest keeps that name for life: the
 * alias means another machine on the next QEMU, and an image of the one doesn't load into the other.
 *
 * @throws StasisError `unsupported` when this QEMU has no such machine (`details.known`: those it has)
 */
export async function resolveMachineType(binary: QemuBinary, name: string): Promise<string> {
  const machines = await machineTypes(binary);
  const machine = machines.find((candidate) => candidate.name === name || candidate.alias === name);
  if (machine !== undefined) return machine.name;
  throw new StasisError('unsupported', `QEMU ${binary.versionText} has no machine type "${name}"`, {
    details: { machine: name, known: machines.map((known) => known.name).toSorted() },
  });
}

/** Asks a QEMU without a machine, over its standard input and output: it leaves nothing on the disk. */
async function queryMachines(binary: QemuBinary): Promise<readonly MachineInfo[]> {
  const args = [
    '-machine',
    'none',
    '-S',
    '-nodefaults',
    '-no-user-config',
    '-display',
    'none',
    '-qmp',
    'stdio',
  ];
  const child = spawn(binary.path, args, { stdio: ['pipe', 'pipe', 'ignore'] });
  const exited = once(child, 'exit');
  exited.catch(() => undefined); // a failed start is told where it is awaited, below
  try {
    await using qmp = await QmpClient.over(Duplex.from({ readable: child.stdout, writable: child.stdin }));
    return await qmp.execute('query-machines');
  } finally {
    child.kill('SIGKILL');
    await exited;
  }
}
