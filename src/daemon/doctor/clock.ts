/** The host's clock, which restored guests are given. */
import { existsSync } from 'node:fs';
import koffi from 'koffi';
import { degraded, ok, type Finding } from './check.ts';

/** systemd-timesyncd makes this file when it has set the clock. */
const SYSTEMD_MARK = '/run/systemd/timesync/synchronized';
const CURE =
  'install and start chrony or systemd-timesyncd; in a virtual machine, chrony with `refclock PHC /dev/ptp0`';

/** `struct timex` of adjtimex(2) on 64-bit Linux: the members that are read, and room for all. */
const TIMEX = { sizeBytes: 256, maxerrorUs: 24, status: 40 } as const;
const TIME_ERROR = 5;
const STA_UNSYNC = 0x40;

export interface KernelClock {
  readonly synchronized: boolean;
  /** how far it may be off, as the kernel reckons */
  readonly maxErrorMs: number;
}

export function hostClock(): Promise<Finding> {
  return Promise.resolve(judge(kernelClock(), existsSync(SYSTEMD_MARK)));
}

/** @param clock undefined when the kernel doesn't say */
export function judge(clock: KernelClock | undefined, markedBySystemd: boolean): Finding {
  if (clock?.synchronized === true) return ok(`synchronized, within ${Math.ceil(clock.maxErrorMs)} ms`);
  if (markedBySystemd) return ok('synchronized, says systemd-timesyncd');
  if (clock === undefined)
    return degraded('unknown: the kernel does not say whether it is synchronized', CURE);
  return degraded('not synchronized, as far as the kernel knows', CURE);
}

/** Only asks: with no mode set, adjtimex(2) changes nothing and needs no right. */
function kernelClock(): KernelClock | undefined {
  const adjtimex: (timex: Buffer) => number = koffi.load('libc.so.6').func('int adjtimex(void *timex)');
  const timex = Buffer.alloc(TIMEX.sizeBytes);
  const state = adjtimex(timex);
  return state < 0 ? undefined : readTimex(state, timex);
}

export function readTimex(state: number, timex: Buffer): KernelClock {
  const status = timex.readInt32LE(TIMEX.status);
  return {
    synchronized: state !== TIME_ERROR && (status & STA_UNSYNC) === 0,
    maxErrorMs: Number(timex.readBigInt64LE(TIMEX.maxerrorUs)) / 1e3,
  };
}
