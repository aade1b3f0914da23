/** Who takes part. A peer that fails is told of and left out from then on; without Stasis there is nothing to measure. */
import { Libvirt } from './peers/libvirt.ts';
import type { Peer } from './peers/peer.ts';

export class Roster {
  #peers: readonly Peer[];
  readonly #onFailure: (what: string) => void;
  readonly #signal: AbortSignal;

  constructor(peers: readonly Peer[], onFailure: (what: string) => void, signal: AbortSignal) {
    this.#peers = peers;
    this.#onFailure = onFailure;
    this.#signal = signal;
  }

  /** Everybody's turn, one after the other. @throws the signal's reason, between two turns */
  async each(work: (peer: Peer) => Promise<void>): Promise<void> {
    for (const peer of this.#peers) {
      this.#signal.throwIfAborted();
      try {
        await work(peer);
      } catch (error) {
        if (!(peer instanceof Libvirt) || this.#signal.aborted) throw error;
        this.#peers = this.#peers.filter((other) => other !== peer);
        this.#onFailure(`${peer.name} failed and is left out from then on: ${String(error).trim()}`);
      }
    }
  }
}
