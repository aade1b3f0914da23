import type { QemuBinary } from './binary.ts';
import { probeQemu } from './probe.ts';

const probes = new Map<string, Promise<ReadonlySet<string>>>();

/**
 * The names of everything that this QEMU can make: devices, and ends of channels as `chardev-NAME`. Distributions put
 * some into packages of their own. Asked once per build of QEMU; a failure is not remembered.
 * @throws StasisError `qemu-failed`, `timeout`
 */
export async function qemuTypes(binary: QemuBinary): Promise<ReadonlySet<string>> {
  const key = `${binary.path}:${binary.modifiedMs}`;
  const probe = probes.get(key) ?? queryTypes(binary);
  probes.set(key, probe);
  try {
    return await probe;
  } catch (error) {
    probes.delete(key);
    throw error;
  }
}

function queryTypes(binary: QemuBinary): Promise<ReadonlySet<string>> {
  return probeQemu(
    binary,
    async (qmp) => new Set((await qmp.execute('qom-list-types')).map(({ name }) => name)),
  );
}
