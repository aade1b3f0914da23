/** Going back to a live save: until the guest runs, until it answers, and the whole command. */
import type { Figures, Setting } from '../figures.ts';
import { Stasis } from '../peers/stasis.ts';
import { run, timed } from '../peers/peer.ts';
import type { Roster } from '../roster.ts';

export async function measureRestore(
  peers: Roster,
  setting: Setting,
  rounds: number,
  figures: Figures,
): Promise<void> {
  await peers.each(async (peer) => void (await peer.saveLive(AbortSignal.timeout(60_000))));
  for (let round = 0; round < rounds; round += 1) {
    await peers.each(async (peer) => {
      await run('sync', []);
      const restore = await timed(() => peer.restoreLive());
      const answer = await timed(async () => (await peer.witness()).close());
      figures.add('restore', setting, peer.name, 'ms', restore.ms);
      figures.add('restore, until the guest answers', setting, peer.name, 'ms', restore.ms + answer.ms);
      if (peer instanceof Stasis) {
        const command = await timed(() => peer.restoreLiveByCommand());
        figures.add('restore', setting, '`stasis restore`, the whole command', 'ms', command.ms);
      }
    });
  }
  await peers.each((peer) => peer.dropLive());
}
