import type { EventName, QmpEvent } from './commands.ts';
import { waitFor, type WaitOptions } from '../wait.ts';

/** So many are never waiting: who watches takes them at once. QEMU sends some in a second. */
const MOST_WAITING = 10_000;

/**
 * A queue of the events that arrive after it was opened. Open it *before* the command that causes the event:
 * then none can slip in between. Made by `QmpClient.watch`; end it with `using`.
 */
export class QmpWatch<N extends EventName> implements Disposable {
  readonly #names: ReadonlySet<EventName>;
  readonly #onDispose: (watch: QmpWatch<N>) => void;
  #queue: QmpEvent<N>[] = [];
  #failure: Error | undefined;
  #wake = Promise.withResolvers<void>();

  constructor(names: readonly N[], onDispose: (watch: QmpWatch<N>) => void) {
    this.#names = new Set<EventName>(names);
    this.#onDispose = onDispose;
  }

  /**
   * The first event, of those not yet consumed, for which `predicate` holds. It and all before it are consumed.
   * @throws StasisError `cancelled`, `timeout`, `guest-crashed` (connection ended)
   */
  async next(
    predicate: (event: QmpEvent<N>) => boolean = () => true,
    options: WaitOptions = {},
  ): Promise<QmpEvent<N>> {
    const giveUp = options.timeoutMs === undefined ? undefined : performance.now() + options.timeoutMs;
    for (;;) {
      const found = this.#take(predicate);
      if (found !== undefined) return found;
      if (this.#failure !== undefined) throw this.#failure;
      const timeoutMs = giveUp === undefined ? undefined : Math.max(0, Math.ceil(giveUp - performance.now()));
      const names = [...this.#names].join(' or ');
      await waitFor(`QEMU's event ${names}`, this.#wake.promise, { signal: options.signal, timeoutMs });
    }
  }

  /** Consumes and returns everything that has arrived. */
  drain(): readonly QmpEvent<N>[] {
    const events = this.#queue;
    this.#queue = [];
    return events;
  }

  /** For `QmpClient` only. @throws RangeError when more wait than QEMU can have meant */
  deliver(event: QmpEvent): void {
    if (!isNamed<N>(event, this.#names)) return;
    if (this.#queue.length >= MOST_WAITING)
      throw new RangeError(`${MOST_WAITING} events ${event.event} at once`);
    this.#queue.push(event);
    this.#notify();
  }

  /** For `QmpClient` only: the connection ended, nothing more will come. */
  fail(error: Error): void {
    this.#failure = error;
    this.#notify();
  }

  [Symbol.dispose](): void {
    this.#onDispose(this);
  }

  #take(predicate: (event: QmpEvent<N>) => boolean): QmpEvent<N> | undefined {
    const index = this.#queue.findIndex(predicate);
    const consumed = this.#queue.splice(0, index < 0 ? this.#queue.length : index + 1);
    return index < 0 ? undefined : consumed.at(-1);
  }

  #notify(): void {
    const woken = this.#wake;
    this.#wake = Promise.withResolvers();
    woken.resolve();
  }
}

/** Whether the event has one of the names, for the type checker too. */
export function isNamed<N extends EventName>(
  event: QmpEvent,
  names: ReadonlySet<EventName>,
): event is QmpEvent & QmpEvent<N> {
  return names.has(event.event);
}
