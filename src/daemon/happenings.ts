/** What happens on this host, for all who watch it: events, and operations under way. */
import type { Event, Operation } from '../api/schemas.ts';
import type { OperationRecord } from '../catalog/operations.ts';
import type { EventLog } from '../operations/event-log.ts';
import type { OperationEngine } from '../operations/engine.ts';
import { FanOut } from './fan-out.ts';
import { Progress } from './progress.ts';

/** An operation's progress is told at most that often: nobody reads faster. */
const PROGRESS_INTERVAL_MS = 100;
/** And so many in all are told it in a second: to tell a thousand ten times a second leaves time for nothing else. */
const PROGRESS_PER_SECOND = 2000;

export type Happening =
  | { readonly event: Event }
  | { readonly operation: Operation; readonly record: OperationRecord };

export class Happenings {
  readonly #fanOut = new FanOut<Happening>();
  readonly #events: EventLog;
  readonly #progress: Progress;
  /** what happens is listened to as long as anybody listens here */
  #unlisten: (() => void) | undefined;

  constructor(events: EventLog, engine: OperationEngine) {
    this.#events = events;
    this.#progress = new Progress(engine, () =>
      Math.max(PROGRESS_INTERVAL_MS, (this.#fanOut.size * 1000) / PROGRESS_PER_SECOND),
    );
  }

  /** Tells each event, each change of an operation's phase, its progress now and then, and its end. @returns how to stop */
  listen(tell: (happening: Happening) => void): () => void {
    const leave = this.#fanOut.listen(tell);
    this.#unlisten ??= this.#listen();
    return () => {
      leave();
      if (this.#fanOut.size > 0) return;
      this.#unlisten?.();
      this.#unlisten = undefined;
    };
  }

  #listen(): () => void {
    const stopEvents = this.#events.listen((event) => this.#fanOut.tell({ event }));
    const stopProgress = this.#progress.listen((operation, record) =>
      this.#fanOut.tell({ operation, record }, operation.id),
    );
    return () => {
      stopEvents();
      stopProgress();
    };
  }
}
