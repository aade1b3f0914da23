/** Saving and stopping: how fast memory gets to the disk; and starting from it again. */
import type { Figures, Setting } from '../figures.ts';
import { Libvirt } from '../peers/libvirt.ts';
import { run, timed } from '../peers/peer.ts';
import type { Roster } from '../roster.ts';

export async function measureStopped(
  peers: Roster,
  setting: Setting,
  rounds: number,
  figures: Figures,
): Promise<void> {
  for (let round = 0; round < rounds; round += 1) {
    await peers.each(async (peer) => {
      await run('sync', []);
      const add = (figure: string, unit: 'ms' | 'MB/s', value: number, by: string = peer.name) =>
        figures.add(figure, setting, by, unit, value);
      const { saveMs, storedBytes } = await peer.saveAndStop();
      add('save and stop', 'ms', saveMs);
      add('save and stop, rate', 'MB/s', storedBytes / 1000 / saveMs);
      add('start from it', 'ms', (await timed(() => peer.startAgain())).ms);
      if (peer instanceof Libvirt) {
        const managed = await peer.managedSaveAndStart();
        add('save and stop', 'ms', managed.saveMs, 'libvirt, managedsave');
        add('start from it', 'ms', managed.startMs, 'libvirt, managedsave');
      }
      await (await peer.witness()).close(); // it is the guest that it was
    });
  }
}
