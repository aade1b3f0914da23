/**
 * How long a guest could not run during a whole live save, from before it began until after it returned, while it
 * dirties memory: as felt from outside, the pause included (a sign of life each millisecond over the serial port,
 * held against the host's clock), and as the guest itself saw it, whose clock stands still in the pause.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { Figures, LoadedSetting } from '../figures.ts';
import { Load } from '../load.ts';
import type { Peer } from '../peers/peer.ts';

const GIVE_UP_MS = 45_000;
/** As long as a save takes, about: what the machine does to a guest anyway. */
const BASELINE_MS = 2_000;

export async function measureStalls(
  peers: readonly Peer[],
  setting: LoadedSetting,
  rounds: number,
  figures: Figures,
): Promise<void> {
  const add = (by: string, stalls: Stalls) => {
    figures.add('longest silence, seen from outside', setting, by, 'ms', stalls.outsideMs);
    figures.add('longest stall outside the pause, seen inside', setting, by, 'ms', stalls.insideMs);
  };
  for (let round = 0; round < rounds; round += 1) {
    for (const [index, peer] of peers.entries()) {
      if (index === 0) add('nothing', await stallsDuring(peer, setting, () => delay(BASELINE_MS)));
      const signal = AbortSignal.timeout(GIVE_UP_MS);
      try {
        add(peer.name, await stallsDuring(peer, setting, () => peer.saveLive(signal)));
        await peer.dropLive();
      } catch (error) {
        if (!signal.aborted) throw error;
        const note = `gave up after ${GIVE_UP_MS / 1000} s`;
        figures.note('longest silence, seen from outside', setting, peer.name, 'ms', note);
      }
    }
  }
}

interface Stalls {
  readonly outsideMs: number;
  readonly insideMs: number;
}

async function stallsDuring(
  peer: Peer,
  setting: LoadedSetting,
  work: () => Promise<unknown>,
): Promise<Stalls> {
  await using load = await Load.on(peer, setting.dirtyMbps);
  let [last, outsideMs] = [0, 0];
  await using _ = await load.witness.beats(() => {
    const now = performance.now();
    if (last > 0) outsideMs = Math.max(outsideMs, now - last);
    last = now;
  });
  await load.witness.stalls(); // what was before is forgotten
  outsideMs = 0;
  await work();
  const { longestUs } = await load.witness.stalls();
  return { outsideMs, insideMs: (longestUs[0] ?? 0) / 1000 };
}
