/**
 * Which guests can be saved in the time that is left, and in which order: as many as possible. All saves share one
 * speed, that of the disk, so the smallest guests are chosen. What doesn't fit is shut down from the beginning, which
 * costs no writing: while others are saved there is time for it. Pure: survey.ts asks the guests and the catalog.
 */

/** A guest that runs, and is to end. */
export interface Candidate {
  readonly guest: string;
  readonly name: string;
  readonly wanted: 'save' | 'shutdown' | 'stop';
  /** higher ones begin to end first */
  readonly order: number;
  /** what a save has to write at most */
  readonly bytes: number;
  /** for each step of its end */
  readonly timeLimitMs: number;
  /** why it can't be saved, when that is known */
  readonly obstacle: string | null;
}

/** A save that is under way. */
export interface UnderWay {
  readonly remainingBytes: number;
}

export interface Means {
  /** of all saves together */
  readonly bytesPerSecond: number;
  /** so many saves at once */
  readonly parallel: number;
  /** until when saves must have ended, from now; Infinity: whenever */
  readonly timeMs: number;
  readonly freeBytes: number;
  readonly underWay: readonly UnderWay[];
}

export interface PlannedEnd {
  readonly candidate: Candidate;
  readonly action: 'save' | 'shutdown' | 'stop';
  /** expected, from now; null when nobody can know */
  readonly endMs: number | null;
  readonly why: string;
}

/**
 * What a save takes beside writing memory, in milliseconds: a capture's beginning, reading back, the manifest. Measured 150 to 300 for
 * tiny guests on two cores of emulation (QEMU 10.0).
 */
export const FIXED_MS = 300;
/** Each save needs room for more than memory: device state, manifest, the screen. */
const SPARE_BYTES = 64 * 1024 ** 2;

/** Every candidate once, the saves first and in the order in which they are to begin. */
export function planEnds(candidates: readonly Candidate[], means: Means): PlannedEnd[] {
  const { chosen, refused } = choose(candidates, means);
  const sequence = chosen.toSorted(inOrder);
  const ends = simulate(sequence, means);
  return [
    ...sequence.map((candidate, index) => ({
      candidate,
      action: 'save' as const,
      endMs: ends[index] ?? null,
      why: 'its policy',
    })),
    ...refused.toSorted((a, b) => inOrder(a.candidate, b.candidate)),
  ];
}

/** Higher orders end first; of the same order the smallest, so that the most are safe should it go slower than expected. */
function inOrder(a: Candidate, b: Candidate): number {
  return b.order - a.order || a.bytes - b.bytes || a.name.localeCompare(b.name);
}

function choose(
  candidates: readonly Candidate[],
  means: Means,
): { readonly chosen: readonly Candidate[]; readonly refused: readonly PlannedEnd[] } {
  const reasons = new Map(candidates.map((candidate) => [candidate, whyNotSave(candidate, means)]));
  const able = candidates
    .filter((candidate) => reasons.get(candidate) === undefined)
    .toSorted((a, b) => a.bytes - b.bytes || a.name.localeCompare(b.name));
  // Of those that are able the smallest, as many as fit together.
  let chosen = able;
  for (let reason = whyTooMuch(chosen, means); reason !== undefined; reason = whyTooMuch(chosen, means)) {
    const largest = chosen.at(-1);
    if (largest !== undefined) reasons.set(largest, reason);
    chosen = chosen.slice(0, -1);
  }
  const refused = candidates.filter((candidate) => !chosen.includes(candidate));
  return {
    chosen,
    refused: refused.map((candidate) => withoutSave(candidate, reasons.get(candidate) ?? '')),
  };
}

function withoutSave(candidate: Candidate, why: string): PlannedEnd {
  const action = candidate.wanted === 'save' ? 'shutdown' : candidate.wanted;
  return { candidate, action, endMs: action === 'stop' ? 0 : null, why };
}

/** Why one guest alone is not saved. */
function whyNotSave({ wanted, obstacle, bytes, timeLimitMs }: Candidate, means: Means): string | undefined {
  if (wanted !== 'save') return 'its policy';
  if (obstacle !== null) return `it can't be saved: ${obstacle}`;
  const aloneMs = FIXED_MS + (bytes / means.bytesPerSecond) * 1000;
  return aloneMs <= timeLimitMs
    ? undefined
    : `saving it takes about ${seconds(aloneMs)}, and its time limit is ${seconds(timeLimitMs)}`;
}

/** Why these can't be saved all. */
function whyTooMuch(saves: readonly Candidate[], means: Means): string | undefined {
  if (saves.length === 0) return undefined;
  const neededBytes = saves.reduce((sum, { bytes }) => sum + bytes + SPARE_BYTES, 0);
  if (neededBytes > means.freeBytes) return 'there is no space left for saving it';
  const lastMs = Math.max(...simulate(saves.toSorted(inOrder), means));
  if (lastMs <= means.timeMs) return undefined;
  return `with it the saves would take ${seconds(lastMs)}, and there are ${seconds(Math.max(0, means.timeMs))} for them`;
}

/** When each save ends, from now: the next begins when one has, and all that write share the speed. */
export function simulate(saves: readonly { readonly bytes: number }[], means: Means): number[] {
  const ends: number[] = saves.map(() => 0);
  const waiting = saves.map(({ bytes }, index) => ({ index, fixedMs: FIXED_MS, bytes }));
  let running = means.underWay.map(({ remainingBytes }) => ({
    index: -1,
    fixedMs: 0,
    bytes: remainingBytes,
  }));
  let nowMs = 0;
  while (waiting.length + running.length > 0) {
    running.push(...waiting.splice(0, Math.max(0, means.parallel - running.length)));
    const writers = running.filter(({ fixedMs }) => fixedMs <= 0).length;
    const bytesPerMs = means.bytesPerSecond / 1000 / Math.max(1, writers);
    const leftMs = (save: { fixedMs: number; bytes: number }) =>
      save.fixedMs > 0 ? save.fixedMs : save.bytes / bytesPerMs;
    const stepMs = Math.min(...running.map(leftMs));
    nowMs += stepMs;
    const next = running.map((save) => {
      const isOver = leftMs(save) <= stepMs;
      if (save.fixedMs > 0) return { ...save, fixedMs: isOver ? 0 : save.fixedMs - stepMs };
      return { ...save, bytes: isOver ? 0 : save.bytes - stepMs * bytesPerMs };
    });
    for (const { index, fixedMs, bytes } of next)
      if (index >= 0 && fixedMs <= 0 && bytes <= 0) ends[index] = nowMs;
    running = next.filter(({ fixedMs, bytes }) => fixedMs > 0 || bytes > 0);
  }
  return ends;
}

/** How far a save is. */
export interface SaveProgress {
  readonly elapsedMs: number;
  /** of its bytes, 0 to 1 */
  readonly fraction: number;
}

/**
 * Is a save to be given up for a shutdown? Only at the last moment at which a shutdown still makes sense, and only when it won't
 * end in time at the pace it has.
 * @param leftMs until the guest must have ended
 * @param shutdownMs what a shutdown is to have of that
 */
export function isHopeless(
  { elapsedMs, fraction }: SaveProgress,
  leftMs: number,
  shutdownMs: number,
): boolean {
  return leftMs <= shutdownMs && elapsedMs * (1 - fraction) > leftMs * fraction;
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`;
}
