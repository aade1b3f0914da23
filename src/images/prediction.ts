/**
 * How long a guest will stand still for a live save, told before it is touched. A model of what happens in the pause,
 * corrected by how far it was off at earlier saves of the same guest, or, for a guest that was never saved, at those of
 * others on this host. Pure: choose-capture.ts asks the guest and the catalog.
 */
import { LIVE_METHODS, type LiveMethod } from '../api/constants.ts';
import { allowanceAfter, lengthMs, type Pass } from '../qemu/capture/convergence.ts';

/** What is known of a guest before its save. */
export interface GuestLoad {
  readonly memoryBytes: number;
  /** of it, what the guest has ever touched: the rest is not written */
  readonly residentBytes: number;
  /** 4096, or the size of the huge pages that its memory is made of */
  readonly hostPageBytes: number;
  readonly diskCount: number;
  readonly dirtyBytesPerSecond: number;
}

/** An earlier save as the catalog keeps it. */
export interface Experience {
  readonly dirtyBytesPerSecond: number;
  readonly modelMs: number;
  readonly pauseMs: number;
  /** how fast memory was written */
  readonly bytesPerSecond: number;
}

export interface MethodPrediction {
  readonly method: LiveMethod;
  /** what the model says … */
  readonly modelMs: number;
  /** … and what to expect, corrected by experience */
  readonly pauseMs: number;
  /** the part of it that is the same however much is left to write */
  readonly fixedMs: number;
  /** the other part: precopy's last pass, as the model says */
  readonly lastPassMs: number;
  readonly captureMs: number;
  readonly writtenBytes: number;
  /** how many earlier saves the correction rests on */
  readonly basedOn: number;
}

/**
 * Parts of a pause in milliseconds, measured on two cores of emulation (QEMU 10.0): where they are not this host's,
 * experience corrects them.
 */
const STOP_MS = 1;
const DISKS_MS = 0.5;
const PER_DISK_MS = 0.25;
/** Device state, the little that was dirtied as the guest was stopped, and the end of the migration. */
const PRECOPY_MS = 6;
/** The last pages lie scattered, each is a write of its own: so many times as long as writing them in one go. */
export const SCATTERED = 5;
/** Background: every page of the host is looked at, and write-protected. */
const TRACKING_MS = 2;
const TRACKING_PER_PAGE_MS = 25e-6;

/** What a first save reckons with, in bytes per second. Lower than most: too slow a guess costs a method, too fast a pause. */
const WRITE_SPEED: Readonly<Record<LiveMethod, number>> = { precopy: 500e6, background: 150e6 };
/** One save that went very differently from all others is no reason to mistrust the model as much. */
const CORRECTION = { least: 0.25, most: 6 } as const;

/** So many earlier saves are listened to. */
const LISTENED_TO = 9;
/** Guests that dirty less than this are all the same, in bytes per second. */
const IDLE = 20e6;
/** Two loads that differ by more than this factor are not alike. */
const ALIKE = 2;

/** The newest saves at a load like this one; if there were none, the newest. */
function relevant(
  experience: readonly Experience[],
  { dirtyBytesPerSecond }: GuestLoad,
): readonly Experience[] {
  const level = (rate: number) => Math.log(Math.max(IDLE, rate));
  const alike = experience.filter(
    (past) => Math.abs(level(past.dirtyBytesPerSecond) - level(dirtyBytesPerSecond)) <= Math.log(ALIKE),
  );
  return (alike.length > 0 ? alike : experience).slice(0, LISTENED_TO);
}

/** @param history earlier saves by this method, newest first: of this guest or, when there are none, of others */
export function predict(
  method: LiveMethod,
  load: GuestLoad,
  history: readonly Experience[],
): MethodPrediction {
  const experience = relevant(history, load);
  const speed = median(experience.map(({ bytesPerSecond }) => bytesPerSecond)) ?? WRITE_SPEED[method];
  const { memoryMs, lastPassMs, writtenBytes } =
    method === 'precopy' ? precopy(load, speed) : background(load);
  const fixedMs = STOP_MS + DISKS_MS + PER_DISK_MS * load.diskCount + memoryMs;
  const modelMs = fixedMs + lastPassMs;
  const factor = correction(experience);
  return {
    method,
    modelMs,
    pauseMs: modelMs * factor,
    fixedMs: fixedMs * factor,
    lastPassMs,
    captureMs: (writtenBytes / speed) * 1000,
    writtenBytes,
    basedOn: experience.length,
  };
}

/** How far the model was off; the fewer saves tell that, the less it is believed. */
function correction(experience: readonly Experience[]): number {
  const seen = median(experience.map((past) => past.pauseMs / past.modelMs)) ?? 1;
  const believed = seen ** (experience.length / (experience.length + 1));
  return Math.min(CORRECTION.most, Math.max(CORRECTION.least, believed));
}

/** What nobody notices: no reason to look for a shorter pause. */
const UNNOTICED_MS = 30;

/**
 * The better of the methods. `precopy` costs the guest less while it lasts and is as good as independent of memory: it is
 * taken whenever the guest can be followed. That is asked of the model, since on a busy host all pauses get longer.
 */
export function better(predictions: readonly MethodPrediction[]): MethodPrediction | undefined {
  const [first, second] = LIVE_METHODS.map((method) =>
    predictions.find((prediction) => prediction.method === method),
  );
  if (first === undefined || second === undefined) return first ?? second;
  return first.lastPassMs <= longestLastPass(second) ? first : second;
}

/** The longest last pass of a precopy, in milliseconds, for which one would not turn to `background`. */
export function longestLastPass({ modelMs }: MethodPrediction): number {
  return Math.max(UNNOTICED_MS, 2 * modelMs);
}

interface InPause {
  readonly memoryMs: number;
  readonly lastPassMs: number;
  readonly writtenBytes: number;
}

/** Goes through the passes as the capture will, by the same rule, to the one that is allowed to be the last. */
function precopy({ residentBytes, dirtyBytesPerSecond }: GuestLoad, speed: number): InPause {
  const passes: Pass[] = [{ remainingBytes: residentBytes, bytesPerSecond: speed }];
  let writtenBytes = 0;
  for (let pass = passes[0]; pass !== undefined; pass = passes.at(-1)) {
    writtenBytes += pass.remainingBytes;
    const passMs = lengthMs(pass);
    const allowanceMs = allowanceAfter(passes, Infinity) ?? 0;
    if (passes.length > 1 && passMs <= allowanceMs) {
      const lastPassMs = Math.max(passMs, expectedLastPass(allowanceMs, dirtyBytesPerSecond / speed));
      return { memoryMs: PRECOPY_MS, lastPassMs, writtenBytes };
    }
    const dirtiedBytes = Math.min(residentBytes, (dirtyBytesPerSecond * passMs) / 1000);
    passes.push({ remainingBytes: dirtiedBytes, bytesPerSecond: speed });
  }
  throw new Error('a list that begins with a pass has a last one');
}

/**
 * Each pass is `shrinking` times as long as the one before; where the first that is short enough lies between the
 * allowance and that part of it is chance, on a logarithmic scale: this is the mean.
 */
function expectedLastPass(allowanceMs: number, shrinking: number): number {
  if (shrinking <= 0 || shrinking >= 1) return 0;
  return (SCATTERED * allowanceMs * (1 - shrinking)) / -Math.log(shrinking);
}

function background({ memoryBytes, residentBytes, hostPageBytes }: GuestLoad): InPause {
  const memoryMs = TRACKING_MS + (memoryBytes / hostPageBytes) * TRACKING_PER_PAGE_MS;
  return { memoryMs, lastPassMs: 0, writtenBytes: residentBytes };
}

function median(values: readonly number[]): number | undefined {
  const sorted = values.filter(Number.isFinite).toSorted((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)];
}
