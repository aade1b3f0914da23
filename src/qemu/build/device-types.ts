import type { QemuBinary } from './binary.ts';
import { askedOnce, probeQemu } from './probe.ts';

/**
 * The names of everything that this QEMU can make: devices, and ends of channels as `chardev-NAME`. Distributions put
 * some into packages of their own. Asked once per build of QEMU; a failure is not remembered.
 * @throws StasisError `qemu-failed`, `timeout`
 */
export const qemuTypes = askedOnce(queryTypes);

function queryTypes(binary: QemuBinary): Promise<ReadonlySet<string>> {
  return probeQemu(
    binary,
    async (qmp) => new Set((await qmp.execute('qom-list-types')).map(({ name }) => name)),
  );
}
