/**
 * The pause of a live save, STOP → RESUME by QEMU's own clock, of guests that dirty memory at several rates while they
 * write to two disks; with it the whole time, what QEMU wrote, and how the pause compares with what was predicted.
 */
import type { Figures, LoadedSetting, Unit } from '../figures.ts';
import { Load } from '../load.ts';
import { Libvirt } from '../peers/libvirt.ts';
import { GAVE_UP, saveOrGiveUp, writtenBytes, type Peer } from '../peers/peer.ts';
import type { Roster } from '../roster.ts';

export async function measurePause(
  peers: Roster,
  setting: LoadedSetting,
  rounds: number,
  figures: Figures,
): Promise<void> {
  const gaveUp = new Set<Peer>();
  for (let round = 0; round < rounds; round += 1) {
    await peers.each(async (peer) => {
      if (gaveUp.has(peer)) return;
      if (!(await saveOnce(peer, setting, figures))) gaveUp.add(peer);
      if (peer instanceof Libvirt && setting.dirtyMbps === 0 && round < 3)
        figures.add('pause of an internal snapshot', setting, peer.name, 'ms', await peer.saveInternal());
    });
  }
}

/** @returns false when it was given up */
async function saveOnce(peer: Peer, setting: LoadedSetting, figures: Figures): Promise<boolean> {
  const { memoryMiB, dirtyMbps } = setting;
  const add = (figure: string, unit: Unit, value: number) =>
    figures.add(figure, setting, peer.name, unit, value);
  {
    await using load = await Load.on(peer, dirtyMbps);
    const pid = await peer.pid();
    const before = await writtenBytes(pid);
    const save = await saveOrGiveUp(peer);
    if (save === undefined) {
      figures.note('pause', setting, peer.name, 'ms', GAVE_UP);
      return false;
    }
    const written = (await writtenBytes(pid)) - before;
    add('pause', 'ms', save.pauseMs);
    add('live save', 'ms', save.saveMs);
    add('written by a live save, of memory', '×', written / 1024 ** 2 / memoryMiB);
    add('stored by a live save', 'MiB', save.storedBytes / 1024 ** 2);
    if (dirtyMbps > 0) add('dirtied meanwhile', 'MB/s', await load.reachedMbps());
    if (save.method !== undefined) figures.note('pause', setting, peer.name, 'ms', save.method);
    const { pauseMs, predictedPauseMs } = save;
    // One series for all rates: what is promised is promised of all saves together.
    if (predictedPauseMs !== undefined)
      figures.add(
        'prediction',
        { memoryMiB },
        peer.name,
        '%',
        (100 * (predictedPauseMs - pauseMs)) / pauseMs,
      );
  }
  await peer.dropLive();
  return true;
}
