/**
 * How long a guest could not run during a whole live save, from before it began until after it returned, while it
 * dirties memory: as felt from outside, the pause included (a sign of life each millisecond over the serial port,
 * held against the host's clock), and as the guest itself saw it, whose clock stands still in the pause.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { Figures, LoadedSetting } from '../figures.ts';
import { Load } from '../load.ts';
import { GAVE_UP, saveOrGiveUp, type Peer } from '../peers/peer.ts';
import type { Roster } from '../roster.ts';

const OUTSIDE = 'longest silence, seen from outside';
const INSIDE = 'longest stall outside the pause, seen inside';
/** As long as a save takes, about: what the machine does to a guest anyway. */
const BASELINE_MS = 2_000;

export async function measureStalls(
  peers: Roster,
  setting: LoadedSetting,
  rounds: number,
  figures: Figures,
): Promise<void> {
  const add = (by: string, stalls: Stalls) => {
    figures.add(OUTSIDE, setting, by, 'ms', stalls.outsideMs);
    figures.add(INSIDE, setting, by, 'ms', stalls.insideMs);
  };
  for (let round = 0; round < rounds; round += 1) {
    await peers.each(async (peer) => {
      if (peer.name === 'Stasis') add('no save', await stallsDuring(peer, setting, () => delay(BASELINE_MS)));
      const during = await stallsDuring(peer, setting, () => saveOrGiveUp(peer));
      if (during.result === undefined) return figures.note(OUTSIDE, setting, peer.name, 'ms', GAVE_UP);
      add(peer.name, during);
      await peer.dropLive();
    });
  }
}

interface Stalls {
  readonly outsideMs: number;
  readonly insideMs: number;
}

async function stallsDuring<T>(
  peer: Peer,
  setting: LoadedSetting,
  work: () => Promise<T>,
): Promise<Stalls & { readonly result: T }> {
  await using load = await Load.on(peer, setting.dirtyMbps);
  let [last, outsideMs] = [0, 0];
  await using _ = await load.witness.beats(() => {
    const now = performance.now();
    if (last > 0) outsideMs = Math.max(outsideMs, now - last);
    last = now;
  });
  await load.witness.stalls(); // what was before is forgotten
  outsideMs = 0;
  const result = await work();
  const { longestUs } = await load.witness.stalls();
  return { outsideMs, insideMs: (longestUs[0] ?? 0) / 1000, result };
}
