/** What a guest does while it is measured: it dirties memory at a rate, and writes to both disks all the time. */
import { setTimeout as delay } from 'node:timers/promises';
import type { Witness } from '../test/support/witness.ts';
import { run, type Peer } from './peers/peer.ts';

/** How long the load runs before anything is measured: all of it is under way then. */
const SETTLE_MS = 1_000;
const IDLE_INTERVAL_MS = 1_000;

export class Load implements AsyncDisposable {
  readonly witness: Witness;
  #before = { dirtiedMiB: 0, uptimeMs: 0 };

  private constructor(witness: Witness) {
    this.witness = witness;
  }

  /**
   * Puts a guest under load, until disposed of: only ever the one that is measured. What was written before is on the
   * disk by then, so that nobody pays for what another one wrote.
   */
  static async on(peer: Peer, dirtyMbps: number): Promise<Load> {
    await run('sync', []);
    const load = new Load(await peer.witness());
    await load.witness.interval(1);
    await load.witness.dirty(dirtyMbps, 'touch');
    await delay(SETTLE_MS);
    load.#before = await load.witness.status();
    return load;
  }

  /** The rate that was really reached since the load was on, in MB of the guest's own second. */
  async reachedMbps(): Promise<number> {
    const { dirtiedMiB, uptimeMs } = await this.witness.status();
    const bytes = (dirtiedMiB - this.#before.dirtiedMiB) * 1024 ** 2;
    return bytes / 1000 / (uptimeMs - this.#before.uptimeMs);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await calm(this.witness);
    await this.witness.close();
  }
}

/** Random contents for half of the guest's memory; the area that is dirtied later. */
export async function prepare(peer: Peer, fillMiB: number): Promise<void> {
  await using witness = await peer.witness();
  await witness.fill(1, fillMiB);
  await calm(witness);
}

async function calm(witness: Witness): Promise<void> {
  await witness.dirty(0);
  await witness.interval(IDLE_INTERVAL_MS);
}
