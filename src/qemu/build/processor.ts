/** What a machine's processor is able to do, as its guest sees it: the words of CPUID, from QEMU itself. */
import type { QmpClient } from '../qmp/client.ts';
import { askedOnce, probeQemu } from './probe.ts';
import type { QemuBinary } from './binary.ts';

/** A word of CPUID. */
export interface FeatureWord {
  readonly leaf: number;
  readonly subleaf: number;
  readonly register: string;
  readonly bits: number;
}

/** The processor of a machine that is there. @throws StasisError `qemu-failed` */
export async function processorFeatures(qmp: QmpClient): Promise<FeatureWord[]> {
  const [cpu] = await qmp.execute('query-cpus-fast');
  if (cpu === undefined) return [];
  const words = await qmp.execute('qom-get', { path: cpu['qom-path'], property: 'feature-words' });
  const list: readonly unknown[] = Array.isArray(words) ? words : [];
  return list.flatMap((word) => wordOf({ ...Object(word) }));
}

function wordOf(word: Readonly<Record<string, unknown>>): FeatureWord[] {
  const {
    'cpuid-input-eax': leaf,
    'cpuid-input-ecx': subleaf = 0,
    'cpuid-register': register,
    features,
  } = word;
  if (typeof leaf !== 'number' || typeof subleaf !== 'number') return [];
  if (typeof register !== 'string' || typeof features !== 'number' || features === 0) return [];
  return [{ leaf, subleaf, register, bits: features }];
}

interface Processor {
  readonly machine: string;
  readonly cpu: string;
  readonly accelerator: string;
}

/**
 * The same of a machine that a build would make. It is made, and nothing runs in it. Asked once for each.
 * @throws StasisError `guest-crashed` when QEMU can't make such a machine
 */
export async function featuresOfMachine(
  binary: QemuBinary,
  { machine, cpu, accelerator }: Processor,
): Promise<readonly FeatureWord[]> {
  return featuresOnce(binary, machine, cpu, accelerator);
}

const featuresOnce = askedOnce(queryFeatures);

async function queryFeatures(
  binary: QemuBinary,
  machine: string,
  cpu: string,
  accelerator: string,
): Promise<readonly FeatureWord[]> {
  const args = ['-machine', machine, '-cpu', cpu, '-accel', accelerator, '-m', '16M'];
  return probeQemu(binary, processorFeatures, args);
}

/** What one processor can and another can't, in words; nothing when it can do as much. */
export function lackingFeatures(saved: readonly FeatureWord[], offered: readonly FeatureWord[]): string[] {
  return saved.flatMap(({ leaf, subleaf, register, bits }) => {
    const there = offered.find(
      (word) => word.leaf === leaf && word.subleaf === subleaf && word.register === register,
    );
    // Bits of 32: as unsigned, whatever JavaScript makes of the highest.
    const lacking = (bits & ~(there?.bits ?? 0)) >>> 0;
    if (lacking === 0) return [];
    return [`CPUID ${leaf.toString(16)}.${subleaf}:${register} bits ${lacking.toString(16)}`];
  });
}
