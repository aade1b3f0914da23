/**
 * Layers that nothing needs are collected by the operation that lets go of them. What it could not do, as another guest on the
 * same disks was busy, a reader had them open, the disk was full or the daemon died, is looked for here: at the start, when a reader ends,
 * when a guest has been left alone for a moment, and ever more seldom while it comes to nothing.
 */
import { getGuestByUuid, hasGuest, listGuests } from '../catalog/guests.ts';
import { StasisError } from '../errors.ts';
import type { Host } from '../guests/host.ts';
import { collectProcedure, hasWork } from '../images/collect.ts';
import type { OperationEngine } from '../operations/engine.ts';

const QUIET_MS = 1_000;
/** So long after a try that left something, and twice as long each time after that. */
const AGAIN_MS = 5_000;
const MOST_AGAIN_MS = 300_000;

export class Collector implements Disposable {
  readonly #host: Host;
  readonly #engine: OperationEngine;
  /** the next look at each guest, by UUID */
  readonly #looks = new Map<string, NodeJS.Timeout>();
  /** when something was left: how long to wait for the next try, by UUID */
  readonly #again = new Map<string, number>();

  constructor(host: Host, engine: OperationEngine) {
    this.#host = host;
    this.#engine = engine;
    engine.onEnded(({ kind, guest }) => {
      if (guest !== null) this.#lookIn(guest, kind === 'collect' ? this.#pauseAfterTry(guest) : QUIET_MS);
    });
    host.readers.onEnded(({ guest }) => void this.#look(guest));
  }

  /** Begins what there is to do, guest by guest: each has an operation of its own. */
  async lookAtAll(): Promise<void> {
    for (const { uuid } of await listGuests(this.#host.catalog)) await this.#look(uuid);
  }

  #pauseAfterTry(guest: string): number {
    const pause = this.#again.get(guest) ?? AGAIN_MS;
    this.#again.set(guest, Math.min(pause * 2, MOST_AGAIN_MS));
    return pause;
  }

  #lookIn(guest: string, ms: number): void {
    clearTimeout(this.#looks.get(guest));
    const look = () => {
      this.#looks.delete(guest);
      void this.#look(guest);
    };
    this.#looks.set(guest, setTimeout(look, ms).unref());
  }

  /** Never rejects: it is its own owner. */
  async #look(uuid: string): Promise<void> {
    const { catalog } = this.#host;
    try {
      if (!(await hasGuest(catalog, uuid)) || !(await hasWork(this.#host, uuid))) {
        this.#again.delete(uuid);
        return;
      }
      const { name } = await getGuestByUuid(catalog, uuid);
      await this.#engine.submit(collectProcedure(this.#host), {
        kind: 'collect',
        subject: { guest: uuid, guestName: name, image: null },
        args: {},
      });
    } catch (error) {
      // Whoever holds the guest ends, and then it is looked at again.
      if (StasisError.from(error).code === 'busy') return;
      this.#host.log.error({ err: error, guest: uuid }, 'what nothing needs any more could not be collected');
      this.#lookIn(uuid, this.#pauseAfterTry(uuid));
    }
  }

  [Symbol.dispose](): void {
    for (const look of this.#looks.values()) clearTimeout(look);
  }
}
