/** What a machine is beside its type: topology of its processors, clocks, firmware tables, what Windows wants of it. */
import Type, { type Static } from 'typebox';
import { invalid, OneOf, strict } from './schema.ts';

const count = Type.Integer({ minimum: 1, maximum: 255 });
const flag = Type.Optional(Type.Boolean());

/** If there is room for more processors than `cpus`, the guest sees empty sockets. */
const TopologyInput = Type.Object(
  { sockets: count, dies: Type.Optional(count), cores: count, threads: count },
  strict,
);

/** Each is as QEMU's machine type has it unless it is said here. */
const FeaturesInput = Type.Object(
  { acpi: flag, hpet: flag, smm: flag, vmport: flag, vmcoreinfo: flag },
  strict,
);

const ClockInput = Type.Object(
  {
    /** what the hardware clock shows */
    base: Type.Optional(OneOf('utc', 'localtime')),
    /** ticks of the hardware clock that a guest missed: given to it afterwards (the default), or not */
    rtcTicks: Type.Optional(OneOf('catchup', 'delay')),
    /** the same of the interval timer, under KVM; QEMU's own is `delay` */
    pitTicks: Type.Optional(OneOf('delay', 'discard')),
  },
  strict,
);

/** Whether the guest may sleep with its memory kept, or on its disk (ACPI S3 and S4). */
const SleepInput = Type.Object({ memory: flag, disk: flag }, strict);

/** Hyper-V's interfaces, which make Windows faster. They act under KVM only. */
const HypervInput = Type.Object(
  {
    passthrough: flag,
    relaxed: flag,
    vapic: flag,
    /** how often a lock is tried before the host is told */
    spinlocks: Type.Optional(
      Type.Union([Type.Boolean(), Type.Integer({ minimum: 4095, maximum: 0xffff_ffff })]),
    ),
    vpindex: flag,
    runtime: flag,
    synic: flag,
    stimer: flag,
    stimerDirect: flag,
    reset: flag,
    vendorId: Type.Optional(Type.String({ pattern: '^[A-Za-z0-9 ._-]{1,12}$' })),
    frequencies: flag,
    reenlightenment: flag,
    tlbflush: flag,
    tlbflushDirect: flag,
    tlbflushExt: flag,
    ipi: flag,
    evmcs: flag,
    avic: flag,
    emsrBitmap: flag,
    xmmInput: flag,
    time: flag,
    crash: flag,
  },
  strict,
);
export type Hyperv = Static<typeof HypervInput>;

export const MachineInputs = {
  topology: Type.Optional(TopologyInput),
  features: Type.Optional(FeaturesInput),
  clock: Type.Optional(ClockInput),
  sleep: Type.Optional(SleepInput),
  hyperv: Type.Optional(HypervInput),
} as const;

/** As it was written: what isn't said is the machine type's own, which is pinned. */
export interface MachineDetails {
  readonly topology?: Static<typeof TopologyInput>;
  readonly features?: Static<typeof FeaturesInput>;
  readonly clock?: Static<typeof ClockInput>;
  readonly sleep?: Static<typeof SleepInput>;
  readonly hyperv?: Hyperv;
}

export function pinMachineDetails(read: MachineDetails): MachineDetails {
  const { topology, features, clock, sleep, hyperv } = read;
  return {
    ...(topology && { topology }),
    ...(features && { features }),
    ...(clock && { clock }),
    ...(sleep && { sleep }),
    ...(hyperv && { hyperv }),
  };
}

/** @throws StasisError `invalid-definition` */
export function checkTopology(cpus: number, { topology }: MachineDetails): void {
  if (topology !== undefined && roomFor(topology) < cpus)
    throw invalid(`the topology has room for ${roomFor(topology)} processors, not for ${cpus}`);
}

export function roomFor({ sockets, dies = 1, cores, threads }: Static<typeof TopologyInput>): number {
  return sockets * dies * cores * threads;
}
