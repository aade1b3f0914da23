/** The machine itself: type, processors, memory, clocks. */
import { MAIN_MEMORY } from '../../qemu/restore/restore.ts';
import type { Definition } from '../definition.ts';
import { roomFor, type Hyperv } from '../definition/machine.ts';

/** @param memory `given` when a restore method brings the memory */
export function machineArgs(definition: Definition, memory: 'own' | 'given'): string[] {
  const { machine, accelerator, memoryBytes } = definition;
  return [
    ...['-machine', [machine, ...machineFeatures(definition)].join(',')],
    ...['-accel', accelerator, '-cpu', [definition.cpu, ...hypervFlags(definition.hyperv)].join(',')],
    ...['-m', `size=${memoryBytes / 1024 ** 2}M`, '-smp', processors(definition)],
    ...clockArgs(definition),
    ...sleepArgs(definition),
    ...(definition.features?.vmcoreinfo === true ? ['-device', 'vmcoreinfo'] : []),
    ...(memory === 'own' ? hugePageArgs(definition) : []),
  ];
}

function machineFeatures({ features = {} }: Definition): string[] {
  const { acpi, hpet, smm, vmport } = features;
  return Object.entries({ acpi, hpet, smm, vmport })
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => `${name}=${onOff(value === true)}`);
}

function processors({ cpus, topology }: Definition): string {
  if (topology === undefined) return String(cpus);
  const { sockets, dies, cores, threads } = topology;
  return [
    cpus,
    ...(roomFor(topology) > cpus ? [`maxcpus=${roomFor(topology)}`] : []),
    `sockets=${sockets}`,
    ...(dies === undefined ? [] : [`dies=${dies}`]),
    `cores=${cores}`,
    `threads=${threads}`,
  ].join(',');
}

function clockArgs({ clock = {} }: Definition): string[] {
  // Ticks of the hardware clock that came while the guest couldn't take them are given to it afterwards: a system that
  // counts them, as Windows does, doesn't lose time in a pause. Not part of an image: those taken without it load too.
  const driftfix = clock.rtcTicks === 'delay' ? '' : ',driftfix=slew';
  return [
    ...['-rtc', `base=${clock.base ?? 'utc'}${driftfix}`],
    ...(clock.pitTicks === undefined ? [] : ['-global', `kvm-pit.lost_tick_policy=${clock.pitTicks}`]),
  ];
}

function sleepArgs({ machine, sleep = {} }: Definition): string[] {
  const device = machine.startsWith('pc-i440fx') ? 'PIIX4_PM' : 'ICH9-LPC';
  return [
    ...(sleep.memory === undefined ? [] : ['-global', `${device}.disable_s3=${sleep.memory ? 0 : 1}`]),
    ...(sleep.disk === undefined ? [] : ['-global', `${device}.disable_s4=${sleep.disk ? 0 : 1}`]),
  ];
}

/** The keys of a definition are QEMU's names in another spelling: `stimerDirect` is `hv-stimer-direct`. */
function hypervFlags(hyperv: Hyperv = {}): string[] {
  return Object.entries(hyperv)
    .filter(([, value]) => value !== undefined)
    .map(([key, value]) => {
      const name = key.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
      if (key === 'spinlocks' && value === true) return 'hv-spinlocks=8191';
      if (key === 'spinlocks' && value === false) return 'hv-spinlocks=4294967295'; // never tells
      return `hv-${name}=${typeof value === 'boolean' ? onOff(value) : value}`;
    });
}

/** Huge pages that the kernel reserves as QEMU starts, so that the guest never finds one missing. */
function hugePageArgs({ memoryBytes, hugePageBytes }: Definition): string[] {
  if (hugePageBytes === undefined) return [];
  const backend = {
    'qom-type': 'memory-backend-memfd',
    id: MAIN_MEMORY,
    size: memoryBytes,
    hugetlb: true,
    hugetlbsize: hugePageBytes,
    share: true,
  };
  return ['-object', JSON.stringify(backend), '-machine', `memory-backend=${MAIN_MEMORY}`];
}

function onOff(value: boolean): 'on' | 'off' {
  return value ? 'on' : 'off';
}
