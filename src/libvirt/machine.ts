/** The machine of a domain: firmware, processors, memory, clocks, power. */
import type { DefinitionInput } from '../guests/definition.ts';
import type { Context } from './context.ts';
import type { Element } from './element.ts';
import { readHyperv } from './hyperv.ts';

type Part<Key extends keyof DefinitionInput> = { [K in Key]?: DefinitionInput[K] };

const BYTES_OF_UNIT: Readonly<Record<string, number>> = {
  b: 1,
  bytes: 1,
  kb: 1000,
  k: 1024,
  kib: 1024,
  mb: 1000 ** 2,
  m: 1024 ** 2,
  mib: 1024 ** 2,
  gb: 1000 ** 3,
  g: 1024 ** 3,
  gib: 1024 ** 3,
  tb: 1000 ** 4,
  t: 1024 ** 4,
  tib: 1024 ** 4,
};

/** A size with libvirt's units, of which none means KiB. @returns NaN for a unit that there isn't */
function sizeBytes(element: Element): number {
  const unit = element.attribute('unit') ?? 'KiB';
  return Number(element.text()) * (BYTES_OF_UNIT[unit.toLowerCase()] ?? Number.NaN);
}

/** libvirt rounds memory up to whole MiB too: QEMU has it in nothing smaller. */
export function readMemory(domain: Element, context: Context): Pick<DefinitionInput, 'memory'> {
  const memory = domain.child('memory');
  const bytes = memory === undefined ? Number.NaN : Math.ceil(sizeBytes(memory) / 1024 ** 2) * 1024 ** 2;
  if (Number.isNaN(bytes)) context.problem(memory ?? domain, 'says no amount of memory that is understood');
  const current = domain.child('currentMemory');
  if (current !== undefined && sizeBytes(current) !== bytes)
    context.note(current, 'is not its memory: it starts with all of that, since nobody works the balloon');
  const hugepages = readHugePages(domain);
  return { memory: hugepages === undefined ? bytes : { size: bytes, hugepages } };
}

function readHugePages(domain: Element): boolean | '2MiB' | '1GiB' | undefined {
  const huge = domain.child('memoryBacking')?.child('hugepages');
  if (huge === undefined) return undefined;
  const page = huge.children('page').at(0);
  if (page === undefined) return true;
  const bytes = Number(page.peek('size')) * (BYTES_OF_UNIT[(page.peek('unit') ?? 'KiB').toLowerCase()] ?? 0);
  const size = bytes === 2 * 1024 ** 2 ? '2MiB' : bytes === 1024 ** 3 ? '1GiB' : undefined;
  if (size === undefined) return undefined;
  page.take().attribute('size');
  page.attribute('unit');
  return size;
}

export function readProcessors(domain: Element, context: Context): Part<'cpus' | 'topology' | 'cpu'> {
  const vcpu = domain.child('vcpu');
  const most = Number(vcpu?.text() ?? 1);
  const cpus = vcpu?.number('current') ?? most;
  const cpu = domain.child('cpu');
  const flags = [...readFlags(cpu, context), ...readKvmFlags(domain), ...readClockFlags(domain)];
  return {
    cpus,
    // Without one libvirt makes each processor a socket of its own, which Windows counts.
    topology: readTopology(cpu) ?? { sockets: most, cores: 1, threads: 1 },
    cpu: [readModel(cpu, context), ...flags].join(','),
  };
}

function readTopology(cpu: Element | undefined): DefinitionInput['topology'] {
  const topology = cpu?.child('topology');
  if (topology === undefined) return undefined;
  topology.choice('clusters', { '1': 1 });
  const dies = topology.number('dies');
  return {
    sockets: topology.number('sockets') ?? 1,
    ...(dies === undefined ? {} : { dies }),
    cores: topology.number('cores') ?? 1,
    threads: topology.number('threads') ?? 1,
  };
}

/** What a domain without a processor gets, by libvirt and QEMU. */
const DEFAULT_MODEL = 'qemu64';

function readModel(cpu: Element | undefined, context: Context): string {
  if (cpu === undefined) return DEFAULT_MODEL;
  cpu.choice('match', { exact: true });
  const mode = cpu.choice('mode', { custom: 'custom', 'host-passthrough': 'host', 'host-model': 'host' });
  if (mode === 'host') {
    cpu.choice('migratable', { on: true });
    cpu.child('model')?.text(); // which the host's own takes the place of
    context.note(
      cpu,
      "takes the host's own processor: compare what the guest sees, when it was another host",
    );
    return 'host-model';
  }
  return cpu.child('model')?.text() ?? DEFAULT_MODEL;
}

function readFlags(cpu: Element | undefined, context: Context): string[] {
  if (cpu === undefined) return [];
  const features = cpu.children('feature').flatMap((feature) => {
    const state = feature.choice('policy', { require: 'on', force: 'on', disable: 'off', forbid: 'off' });
    const name = feature.attribute('name');
    if (state === undefined || name === undefined) {
      context.problem(
        feature,
        'has a policy that is not supported: only require, force, disable and forbid are',
      );
      feature.takeAll();
      return [];
    }
    feature.take();
    return [`${name}=${state}`];
  });
  return [...features, ...readAddressBits(cpu), ...readCpuCache(cpu)];
}

function readAddressBits(cpu: Element): string[] {
  const bits = cpu.child('maxphysaddr');
  const mode = bits?.choice('mode', { passthrough: 'host', emulate: 'own' });
  if (mode === 'own') return [`phys-bits=${bits?.number('bits') ?? 40}`];
  if (mode === undefined) return [];
  const limit = bits?.number('limit');
  return ['host-phys-bits=on', ...(limit === undefined ? [] : [`host-phys-bits-limit=${limit}`])];
}

function readCpuCache(cpu: Element): string[] {
  const cache = cpu.child('cache');
  if (cache?.choice('mode', { passthrough: true }) === true) return ['host-cache-info=on', 'l3-cache=off'];
  const isThird = cache?.peek('level') === '3' && cache.choice('mode', { emulate: true }) === true;
  if (!isThird) return [];
  cache.number('level');
  return ['l3-cache=on'];
}

const onOff = (value: boolean | undefined, name: string): string[] =>
  value === undefined ? [] : [`${name}=${value ? 'on' : 'off'}`];

/** What of the features of a domain QEMU has with the processor. */
function readKvmFlags(domain: Element): string[] {
  const features = domain.child('features');
  const kvm = features?.child('kvm');
  const state = (name: string) => kvm?.child(name)?.flag('state');
  const hidden = state('hidden');
  return [
    ...onOff(hidden === undefined ? undefined : !hidden, 'kvm'),
    ...onOff(state('hint-dedicated'), 'kvm-hint-dedicated'),
    ...onOff(state('poll-control'), 'kvm-poll-control'),
    ...onOff(state('pv-ipi'), 'kvm-pv-ipi'),
    ...onOff(features?.child('pmu')?.flag('state'), 'pmu'),
    ...onOff(features?.child('pvspinlock')?.flag('state'), 'kvm-pv-unhalt'),
  ];
}

function readClockFlags(domain: Element): string[] {
  const timers = domain.child('clock')?.children('timer') ?? [];
  const timer = (name: string) => timers.find((element) => element.peek('name') === name)?.take();
  const tsc = timer('tsc');
  tsc?.attribute('name');
  const frequency = tsc?.number('frequency');
  const kvmclock = timer('kvmclock');
  kvmclock?.attribute('name');
  return [
    ...onOff(kvmclock?.flag('present'), 'kvmclock'),
    ...(frequency === undefined ? [] : [`tsc-frequency=${frequency}`]),
  ];
}

export function readFeatures(domain: Element): Part<'features' | 'hyperv' | 'sleep' | 'clock'> {
  const features = domain.child('features');
  const timers = new Map(
    (domain.child('clock')?.children('timer') ?? []).map((timer) => [timer.peek('name'), timer]),
  );
  const timer = (name: string): Element | undefined => {
    const found = timers.get(name)?.take();
    found?.attribute('name');
    return found;
  };
  const smm = features?.child('smm');
  features?.child('apic'); // every machine has it
  const vmport = features?.child('vmport')?.flag('state');
  const vmcoreinfo = features?.child('vmcoreinfo');
  const hpet = timer('hpet')?.flag('present');
  const hyperv = readHyperv(features?.child('hyperv'), timer('hypervclock')?.flag('present'), domain);
  return {
    features: {
      acpi: features?.child('acpi') !== undefined,
      ...(hpet === undefined ? {} : { hpet }),
      ...(smm === undefined ? {} : { smm: smm.flag('state') ?? true }),
      ...(vmport === undefined ? {} : { vmport }),
      ...(vmcoreinfo === undefined ? {} : { vmcoreinfo: vmcoreinfo.flag('state') ?? true }),
    },
    ...(Object.keys(hyperv).length === 0 ? {} : { hyperv }),
    ...readSleep(domain),
    clock: readClock(domain, timer('rtc'), timer('pit')),
  };
}

function readSleep(domain: Element): Part<'sleep'> {
  const pm = domain.child('pm');
  const memory = pm?.child('suspend-to-mem')?.flag('enabled');
  const disk = pm?.child('suspend-to-disk')?.flag('enabled');
  if (memory === undefined && disk === undefined) return {};
  return { sleep: { ...(memory === undefined ? {} : { memory }), ...(disk === undefined ? {} : { disk }) } };
}

function readClock(
  domain: Element,
  rtc: Element | undefined,
  pit: Element | undefined,
): NonNullable<DefinitionInput['clock']> {
  const clock = domain.child('clock');
  const base = clock?.choice('offset', { utc: 'utc', localtime: 'localtime' } as const);
  if (clock?.peek('offset') === 'variable' && clock.peek('adjustment') === '0') {
    clock.attribute('offset');
    clock.attribute('adjustment');
    return { base: clock.choice('basis', { utc: 'utc', localtime: 'localtime' } as const) ?? 'utc' };
  }
  rtc?.choice('track', { wall: true });
  const rtcTicks = rtc?.choice('tickpolicy', { catchup: 'catchup', delay: 'delay' } as const);
  const pitTicks = pit?.choice('tickpolicy', { delay: 'delay', discard: 'discard' } as const);
  return {
    base: base ?? 'utc',
    ...(rtcTicks === undefined ? {} : { rtcTicks }),
    ...(pitTicks === undefined ? {} : { pitTicks }),
  };
}

/** What is done when the guest ends. */
export function readEvents(domain: Element, context: Context): void {
  const on = (name: string, understood: readonly string[]) => {
    const action = domain.children(name).at(0);
    if (action === undefined) return;
    action.take();
    const value = action.text();
    if (!understood.includes(value))
      context.problem(action, `${value} is not supported: only ${understood.join(', ')}`);
    if (name === 'on_crash' && value === 'restart')
      context.note(action, 'restart: a guest that crashes is not started again by itself');
  };
  on('on_poweroff', ['destroy']);
  on('on_reboot', ['restart']);
  on('on_crash', ['destroy', 'restart', 'preserve']);
}
