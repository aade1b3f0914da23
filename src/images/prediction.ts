/**
 * How long a guest will stand still for a live save, told before it is touched. A model of what happens in the pause,
 * corrected by how far it was off at earlier saves of the same guest, or, for a guest that was never saved, at those of
 * others on this host. Pure: choose-capture.ts asks the guest and the catalog.
 */
import { LIVE_METHODS, type LiveMethod } from '../api/constants.ts';
import { allowanceAfter, lengthMs, type Pass } from '../qemu/convergence.ts';

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
/** Background: every page of the host is looked at, and write-protected. */
const TRACKING_MS = 3;
const TRACKING_PER_PAGE_MS = 40e-6;

/** What a first save reckons with, in bytes per second. Lower than most: too slow a guess costs a method, too fast a pause. */
const WRITE_SPEED: Readonly<Record<LiveMethod, number>> = { precopy: 500e6, background: 150e6 };
/** One save that went very differently from all others is no reason to mistrust the model as much. */
const CORRECTION = { least: 0.25, most: 6 } as const;

/** @param experience earlier saves by this method, of this guest or, when there are none, of others */
export function predict(
  method: LiveMethod,
  load: GuestLoad,
  experience: readonly Experience[],
): MethodPrediction {
  const speed = median(experience.map(({ bytesPerSecond }) => bytesPerSecond)) ?? WRITE_SPEED[method];
  const { memoryMs, lastPassMs, writtenBytes } =
    method === 'precopy' ? precopy(load, speed) : background(load);
  const fixedMs = STOP_MS + DISKS_MS + PER_DISK_MS * load.diskCount + memoryMs;
  const modelMs = fixedMs + lastPassMs;
  const correction = median(experience.map((past) => past.pauseMs / past.modelMs)) ?? 1;
  const factor = Math.min(CORRECTION.most, Math.max(CORRECTION.least, correction));
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

/** Goes through the passes as the capture will, by the same rule. */
function precopy({ residentBytes, dirtyBytesPerSecond }: GuestLoad, speed: number): InPause {
  const passes: Pass[] = [{ remainingBytes: residentBytes, bytesPerSecond: speed }];
  let writtenBytes = 0;
  for (let pass = passes[0]; pass !== undefined; pass = passes.at(-1)) {
    writtenBytes += pass.remainingBytes;
    const passMs = lengthMs(pass);
    if (passes.length > 1 && passMs <= (allowanceAfter(passes, Infinity) ?? 0)) {
      return { memoryMs: PRECOPY_MS, lastPassMs: passMs, writtenBytes };
    }
    const dirtiedBytes = Math.min(residentBytes, (dirtyBytesPerSecond * passMs) / 1000);
    passes.push({ remainingBytes: dirtiedBytes, bytesPerSecond: speed });
  }
  throw new Error('a list that begins with a pass has a last one');
}

function background({ memoryBytes, residentBytes, hostPageBytes }: GuestLoad): InPause {
  const memoryMs = TRACKING_MS + (memoryBytes / hostPageBytes) * TRACKING_PER_PAGE_MS;
  return { memoryMs, lastPassMs: 0, writtenBytes: residentBytes };
}

function median(values: readonly number[]): number | undefined {
  const sorted = values.filter(Number.isFinite).toSorted((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)];
}
