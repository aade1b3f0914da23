/**
 * When a precopy may stop the guest. QEMU goes through memory pass by pass, each time over what the guest dirtied
 * during the pass before, and stops it when it expects to write the rest within an allowed time. The allowance begins
 * small, so that a guest which converges is stopped with next to nothing left, and grows with the passes, so that
 * one which converges slowly is not followed for ever. Pure: precopy.ts feeds it, the prediction simulates with it.
 */

/** What QEMU still has to write as a pass begins, and how fast it wrote during the last one. */
export interface Pass {
  readonly remainingBytes: number;
  readonly bytesPerSecond: number;
}

/** The time that the last pass may take, with the guest standing still. */
export const FIRST_ALLOWANCE_MS = 3;
/** So many passes are given a guest to come down to the first allowance; then it doubles with each. */
const PATIENT_PASSES = 4;
/**
 * A pass that begins with more than this part of what the last but one began with makes no headway: twice in a row,
 * since on a busy host a single one may be chance.
 */
const HEADWAY = 0.8;
/** A guest that makes no headway dirties about as much during the pass that was allowed for. */
const MARGIN = 1.5;

/**
 * The allowance after the passes so far, oldest first; the first one is over all of memory.
 * @param mostMs no pause beyond this is wanted
 * @returns milliseconds, or `undefined` when the guest dirties memory too fast to be stopped within `mostMs`
 */
export function allowanceAfter(passes: readonly Pass[], mostMs: number): number | undefined {
  const growth = Math.max(0, passes.length - PATIENT_PASSES);
  const patientMs = FIRST_ALLOWANCE_MS * 2 ** growth;
  const [before, last] = [passes.at(-3), passes.at(-1)];
  const isStuck =
    passes.length > 3 && before !== undefined && last !== undefined && !makesHeadway(before, last);
  const neededMs = isStuck ? MARGIN * lengthMs(last) : patientMs;
  if (neededMs <= mostMs) return Math.max(neededMs, patientMs);
  // As long as it comes down, the most that is wanted may do.
  return isStuck || growth > 2 * PATIENT_PASSES ? undefined : mostMs;
}

/** How long writing takes what a pass begins with. */
export function lengthMs({ remainingBytes, bytesPerSecond }: Pass): number {
  return (remainingBytes / Math.max(1, bytesPerSecond)) * 1000;
}

function makesHeadway(before: Pass, last: Pass): boolean {
  return last.remainingBytes <= before.remainingBytes * HEADWAY;
}
