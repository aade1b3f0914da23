/** Saving and stopping: how fast memory gets to the disk; and starting from it again. */
import type { Figures, Setting } from '../figures.ts';
import { Libvirt } from '../peers/libvirt.ts';
import { Stasis } from '../peers/stasis.ts';
import { run, timed } from '../peers/peer.ts';
import type { Roster } from '../roster.ts';

const MAPPED = 'Stasis, of a guest restored mapped';

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
      if (peer instanceof Stasis) {
        // It runs on the image's file now. What it hasn't touched has to be read from there to be saved again.
        const again = await peer.saveAndStop();
        add('save and stop', 'ms', again.saveMs, MAPPED);
        add('save and stop, rate', 'MB/s', again.storedBytes / 1000 / again.saveMs, MAPPED);
        add('start from it', 'ms', (await timed(() => peer.startEagerly())).ms, 'Stasis, eager');
      }
      await (await peer.witness()).close(); // it is the guest that it was
    });
  }
}
