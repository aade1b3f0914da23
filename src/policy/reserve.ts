/** How the time for a shutdown of the host is divided: at its end there must be enough left to pull the plugs. */

/** A QEMU that is told to end closes its disks in order, and is killed after 2 s. */
const STOP_MS = 5_000;
const SHUTDOWN_MS = 30_000;

/** Until when saves and shutdowns may last, in milliseconds from the beginning. @param budgetMs Infinity: as long as it takes */
export function savesUntilMs(budgetMs: number): number {
  return budgetMs - Math.min(STOP_MS, budgetMs / 4);
}

/** What a guest whose save won't end in time is to have left for its shutdown. */
export function shutdownReserveMs(budgetMs: number): number {
  return Math.min(SHUTDOWN_MS, budgetMs / 4);
}
