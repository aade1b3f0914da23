/** Ten new guests from one image at once: until all run, and what they take of memory then. */
import { readFile } from 'node:fs/promises';
import type { Figures, Setting } from '../figures.ts';
import { GUEST, LIVE, type Stasis } from '../peers/stasis.ts';
import { timed } from '../peers/peer.ts';

const CLONES = Array.from({ length: 10 }, (_, index) => `clone${index}`);

export async function measureClones(
  stasis: Stasis,
  setting: Setting,
  rounds: number,
  figures: Figures,
): Promise<void> {
  const { client } = stasis;
  await stasis.saveLive(AbortSignal.timeout(60_000));
  for (let round = 0; round < rounds; round += 1) {
    const { ms } = await timed(() =>
      Promise.all(CLONES.map((asNewGuest) => client.restoreSaveImage(GUEST, LIVE, { asNewGuest }))),
    );
    const original = await residentBytes(await stasis.pid());
    let all = 0;
    for (const clone of CLONES) all += await residentBytes(await stasis.pid(clone));
    figures.add('ten clones', setting, 'all running', 'ms', ms);
    figures.add('memory of ten clones, of one guest', setting, 'ten clones', '×', all / original);
    for (const clone of CLONES) {
      await client.stop(clone);
      await client.undefineGuest(clone);
    }
  }
  await stasis.dropLive();
}

/** A process's share of memory: what it shares with n others counts for an n-th, proc_pid_smaps(5). */
async function residentBytes(pid: number): Promise<number> {
  const [, kibibytes] = /^Pss:\s+(\d+) kB$/m.exec(await readFile(`/proc/${pid}/smaps_rollup`, 'utf8')) ?? [];
  return Number(kibibytes) * 1024;
}
