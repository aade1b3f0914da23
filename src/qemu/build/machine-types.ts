import { StasisError } from '../../errors.ts';
import type { QemuBinary } from './binary.ts';
import { askedOnce, probeQemu } from './probe.ts';
import type { MachineInfo } from '../qmp/results.ts';

/**
 * The machine types that this QEMU can be. Asked once per build of QEMU; a failure is not remembered.
 * @throws StasisError `qemu-failed`, `timeout`
 */
export const machineTypes = askedOnce(queryMachines);

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

function queryMachines(binary: QemuBinary): Promise<readonly MachineInfo[]> {
  return probeQemu(binary, (qmp) => qmp.execute('query-machines'));
}
