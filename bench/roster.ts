/** Who takes part. A peer that fails is told of and left out from then on; without Stasis there is nothing to measure. */
import { Libvirt } from './peers/libvirt.ts';
import type { Peer } from './peers/peer.ts';

export class Roster {
  #peers: readonly Peer[];
  readonly #onFailure: (what: string) => void;

  constructor(peers: readonly Peer[], onFailure: (what: string) => void) {
    this.#peers = peers;
    this.#onFailure = onFailure;
  }

  /** Everybody's turn, one after the other. */
  async each(work: (peer: Peer) => Promise<void>): Promise<void> {
    for (const peer of this.#peers) {
      try {
        await work(peer);
      } catch (error) {
        if (!(peer instanceof Libvirt)) throw error;
        this.#peers = this.#peers.filter((other) => other !== peer);
        this.#onFailure(`${peer.name} failed and is left out from then on: ${String(error).trim()}`);
      }
    }
  }
}
