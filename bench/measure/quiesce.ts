/**
 * What `--quiesce` costs a guest: how long its file systems are frozen and its machine stands still in a live save with it,
 * beside one without, taking turns; and what a program in the guest feels that writes and synchronizes a record every 5 ms.
 */
import { startWritingFiles } from '../../test/support/files-guest.ts';
import { Lab } from '../../test/support/lab.ts';
import type { Figures, Setting } from '../figures.ts';
import { run } from '../peers/peer.ts';

const GUEST = 'quiesce';
const WAYS = [
  { by: 'live save', quiesce: false },
  { by: 'live save, quiesced', quiesce: 'require' },
] as const;
/** Of the guest's memory: what is written before it is frozen. */
const FILL_PART = 0.5;

export async function measureQuiesce(
  directory: string,
  setting: Setting,
  rounds: number,
  figures: Figures,
  signal: AbortSignal,
): Promise<void> {
  await using lab = await Lab.create(directory);
  await startWritingFiles(lab, GUEST, `${setting.memoryMiB}MiB`);
  await using witness = await lab.witness(GUEST);
  await witness.fill(1, setting.memoryMiB * FILL_PART);
  for (let round = 0; round < rounds; round += 1) {
    for (const { by, quiesce } of WAYS) {
      signal.throwIfAborted();
      await run('sync', []);
      await witness.files(); // what was before is forgotten
      const image = await lab.client.createSaveImage(GUEST, { name: 'a', live: true, quiesce });
      const { longestMs } = await witness.files();
      const pauseMs = image.pauseMs ?? Number.NaN;
      figures.add('pause, of a guest that writes files', setting, by, 'ms', pauseMs);
      if (image.frozenMs !== null) figures.add('file systems frozen', setting, by, 'ms', image.frozenMs);
      // The guest's own clock stands still in the pause.
      figures.add('longest wait of a write, the pause included', setting, by, 'ms', longestMs + pauseMs);
      await lab.client.deleteSaveImage(GUEST, 'a');
    }
  }
}
