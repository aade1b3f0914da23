/**
 * The pause of a live save, STOP → RESUME by QEMU's own clock, of guests that dirty memory at several rates while they
 * write to two disks; with it the whole time, what QEMU wrote, and how the pause compares with what was predicted.
 */
import type { Figures, LoadedSetting } from '../figures.ts';
import { Load } from '../load.ts';
import { Libvirt } from '../peers/libvirt.ts';
import { writtenBytes, type Peer } from '../peers/peer.ts';

/** Whoever can't keep up with the guest would go on for ever. */
const GIVE_UP_MS = 45_000;

export async function measurePause(
  peers: readonly Peer[],
  setting: LoadedSetting,
  rounds: number,
  figures: Figures,
): Promise<void> {
  const gaveUp = new Set<Peer>();
  for (let round = 0; round < rounds; round += 1) {
    for (const peer of peers)
      if (!gaveUp.has(peer) && !(await saveOnce(peer, setting, figures))) gaveUp.add(peer);
  }
  const libvirt = peers.find((peer) => peer instanceof Libvirt);
  if (libvirt !== undefined && setting.dirtyMbps === 0) {
    for (let round = 0; round < Math.min(rounds, 3); round += 1)
      figures.add('pause', setting, 'libvirt, internal snapshot', 'ms', await libvirt.saveInternal());
  }
}

/** @returns false when it was given up */
async function saveOnce(peer: Peer, setting: LoadedSetting, figures: Figures): Promise<boolean> {
  const add = (figure: string, unit: 'ms' | 'MiB' | '×' | '%' | 'MB/s', value: number) =>
    figures.add(figure, setting, peer.name, unit, value);
  const signal = AbortSignal.timeout(GIVE_UP_MS);
  try {
    await using load = await Load.on(peer, setting.dirtyMbps);
    const pid = await peer.pid();
    const before = await writtenBytes(pid);
    const save = await peer.saveLive(signal);
    const written = (await writtenBytes(pid)) - before;
    add('pause', 'ms', save.pauseMs);
    add('live save', 'ms', save.saveMs);
    add('written by a live save', '×', written / 1024 ** 2 / setting.memoryMiB);
    add('stored by a live save', 'MiB', save.storedBytes / 1024 ** 2);
    if (setting.dirtyMbps > 0) add('dirtied', 'MB/s', await load.reachedMbps());
    if (save.predictedPauseMs !== undefined)
      add('prediction', '%', (100 * (save.predictedPauseMs - save.pauseMs)) / save.pauseMs);
    if (save.method !== undefined) figures.note('pause', setting, peer.name, 'ms', save.method);
  } catch (error) {
    if (!signal.aborted) throw error;
    figures.note('pause', setting, peer.name, 'ms', `gave up after ${GIVE_UP_MS / 1000} s`);
    return false;
  }
  await peer.dropLive();
  return true;
}
