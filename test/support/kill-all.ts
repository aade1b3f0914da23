import { waitForEnd } from '../../src/qemu/process/process-scan.ts';

/** Signals processes, and waits for the end of those it kills; those that have ended meanwhile are no matter. */
export async function killAll(
  pids: readonly number[],
  signal: NodeJS.Signals = 'SIGKILL',
): Promise<readonly number[]> {
  const reached = pids.filter((pid) => {
    try {
      return process.kill(pid, signal);
    } catch {
      return false;
    }
  });
  if (signal === 'SIGKILL') for (const pid of reached) await waitForEnd(pid, 60_000);
  return reached;
}
