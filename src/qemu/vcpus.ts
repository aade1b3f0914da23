/** What a guest's virtual processors do, seen from outside. */
import { readFile } from 'node:fs/promises';
import type { QemuProcess } from './process/process.ts';
import type { QmpClient } from './qmp/client.ts';

export interface CpuPlace {
  /** of the instruction that comes next, hexadecimal */
  readonly address: string;
  /** it waits for an interrupt */
  readonly isHalted: boolean;
}

/** Of a line of `info registers`: so long that no register is longer, so that what is none is soon known not to be. */
const PLACE = /^(?:RIP|EIP)=([0-9a-f]{1,16}) .{0,200}?\bHLT=([01])/gm;

/** Where each vCPU is, in their order. `info registers` is meant for people; its lines are the same since QEMU 2. */
export async function placesOfCpus(qmp: QmpClient): Promise<CpuPlace[]> {
  const text = await qmp.execute('human-monitor-command', { 'command-line': 'info registers -a' });
  return [...text.matchAll(PLACE)].map(([, address = '', halted]) => ({
    address,
    isHalted: halted === '1',
  }));
}

/**
 * For how long the thread of each vCPU has run so far, in milliseconds: proc(5), `schedstat`, whose first number is in nanoseconds.
 * @param threads those that are known: QEMU isn't asked then, which alone would let them run
 */
export async function runtimesOfCpus(
  { pid, qmp }: QemuProcess,
  threads?: readonly number[],
): Promise<Map<number, number>> {
  const known = threads ?? (await qmp.execute('query-cpus-fast')).map((cpu) => cpu['thread-id']);
  const times = await Promise.all(
    known.map(async (thread) => {
      const [ran = '0'] = (await readFile(`/proc/${pid}/task/${thread}/schedstat`, 'utf8')).split(' ');
      return [thread, Number(ran) / 1e6] as const;
    }),
  );
  return new Map(times);
}
