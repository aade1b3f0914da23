/** The pause once more, of a guest whose memory is made of huge pages: where a host has set aside enough of them. */
import { readFile } from 'node:fs/promises';
import type { Figures, LoadedSetting } from '../figures.ts';
import { prepare } from '../load.ts';
import { Stasis } from '../peers/stasis.ts';
import { Roster } from '../roster.ts';
import { measurePause } from './pause.ts';

/** @returns why it can't be measured here, if it can't */
export async function whyNoHugePages({ memoryMiB }: LoadedSetting): Promise<string | undefined> {
  const meminfo = await readFile('/proc/meminfo', 'utf8');
  const value = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(meminfo)?.[1] ?? 0);
  const freeMiB = (value('HugePages_Free') * value('Hugepagesize')) / 1024;
  if (freeMiB >= memoryMiB) return undefined;
  return `huge pages at ${memoryMiB} MiB: the host has ${freeMiB} MiB of them free; bench/README.md has the command`;
}

export async function measureHugePages(
  directory: string,
  setting: LoadedSetting,
  rounds: number,
  figures: Figures,
  signal: AbortSignal,
): Promise<void> {
  await using stasis = await Stasis.create(directory, setting.memoryMiB, true);
  await stasis.boot();
  await prepare(stasis, setting.memoryMiB / 2);
  const alone = new Roster([stasis], () => {}, signal);
  await measurePause(alone, setting, rounds, figures);
}
