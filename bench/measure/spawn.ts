/**
 * From the start of a QEMU process to its guest running, by each way to restore; beside it how long QEMU alone takes
 * to its first greeting over QMP.
 */
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { StasisError } from '../../src/errors.ts';
import type { Figures, Setting } from '../figures.ts';
import type { Bare } from '../peers/bare.ts';
import { GUEST, LIVE, type Stasis } from '../peers/stasis.ts';

const METHODS = ['mapped', 'lazy', 'eager'] as const;
const CLONE = 'spawned';

export async function measureSpawn(
  stasis: Stasis,
  bare: Bare,
  setting: Setting,
  rounds: number,
  figures: Figures,
): Promise<void> {
  await stasis.saveLive(AbortSignal.timeout(60_000));
  const add = (by: string, ms: number) =>
    figures.add('start of QEMU to guest running', setting, by, 'ms', ms);
  const missing = new Set<string>();
  for (let round = 0; round < rounds; round += 1) {
    add('QEMU alone, to its greeting', await bare.untilGreeting());
    for (const method of METHODS) {
      if (missing.has(method)) continue;
      try {
        add(method, await spawnToRunning(stasis, method));
      } catch (error) {
        if (!(error instanceof StasisError && error.code === 'unsupported')) throw error;
        missing.add(method);
        figures.note('start of QEMU to guest running', setting, method, 'ms', error.message);
      }
    }
  }
  await stasis.dropLive();
}

/**
 * Of a clone, since nothing has to end for it. Both ends by the host's clock: QEMU's log is made right before QEMU is
 * started, and the daemon tells of the guest running when QEMU has told it.
 */
async function spawnToRunning(stasis: Stasis, method: (typeof METHODS)[number]): Promise<number> {
  const { client } = stasis;
  await client.restoreSaveImage(GUEST, LIVE, { asNewGuest: CLONE, method });
  const { birthtimeMs } = await stat(join(await stasis.runDirectory(CLONE), 'qemu.log'));
  const events = await client.listEvents({ guest: CLONE });
  const running = events
    .filter(({ type, action }) => type === 'guest' && action === 'running')
    .map(({ at }) => Date.parse(at))
    .find((at) => at > birthtimeMs);
  await client.stop(CLONE);
  await client.undefineGuest(CLONE);
  if (running === undefined) throw new Error('no event told that the clone runs');
  return running - birthtimeMs;
}
