/** Hyper-V's interfaces in a domain. */
import type { DefinitionInput } from '../guests/definition.ts';
import type { Element } from './element.ts';

type Hyperv = NonNullable<DefinitionInput['hyperv']>;

/** libvirt's names of those that are on or off, and a definition's. */
const SWITCHES = {
  relaxed: 'relaxed',
  vapic: 'vapic',
  vpindex: 'vpindex',
  runtime: 'runtime',
  synic: 'synic',
  stimer: 'stimer',
  reset: 'reset',
  frequencies: 'frequencies',
  reenlightenment: 'reenlightenment',
  tlbflush: 'tlbflush',
  ipi: 'ipi',
  evmcs: 'evmcs',
  avic: 'avic',
  emsr_bitmap: 'emsrBitmap',
  xmm_input: 'xmmInput',
} as const satisfies Record<string, keyof Hyperv>;

/** Parts of a switch, which are elements in it. */
const PARTS = [
  ['stimer', 'direct', 'stimerDirect'],
  ['tlbflush', 'direct', 'tlbflushDirect'],
  ['tlbflush', 'extended', 'tlbflushExt'],
] as const;

/** @param clock whether the guest has the timer `hypervclock` */
export function readHyperv(hyperv: Element | undefined, clock: boolean | undefined, domain: Element): Hyperv {
  const read: Hyperv = clock === undefined ? {} : { time: clock };
  if (hyperv?.choice('mode', { custom: false, passthrough: true }) === true) read.passthrough = true;
  for (const [name, key] of Object.entries(SWITCHES)) {
    const state = hyperv?.child(name)?.flag('state');
    if (state !== undefined) read[key] = state;
  }
  for (const [name, part, key] of PARTS) {
    const state = hyperv?.child(name)?.child(part)?.flag('state');
    if (state !== undefined) read[key] = state;
  }
  const spinlocks = hyperv?.child('spinlocks');
  if (spinlocks?.flag('state') === true) read.spinlocks = spinlocks.number('retries') ?? true;
  const vendor = hyperv?.child('vendor_id');
  if (vendor?.flag('state') === true) read.vendorId = vendor.attribute('value') ?? '';
  if (hasCrashRegisters(domain)) read.crash = true;
  return read;
}

/** A panic device that is no device: registers of Hyper-V. */
function hasCrashRegisters(domain: Element): boolean {
  const panic = domain
    .child('devices')
    ?.children('panic')
    .find((element) => element.peek('model') === 'hyperv');
  panic?.take().attribute('model');
  return panic !== undefined;
}
