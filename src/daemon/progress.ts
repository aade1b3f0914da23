/** Operations under way, for whoever watches all of them: looked at once, however many do. */
import type { Operation } from '../api/schemas.ts';
import type { OperationRecord } from '../catalog/operations.ts';
import type { OperationEngine } from '../operations/engine.ts';
import type { LiveOperation } from '../operations/operation.ts';
import { operationSummary } from './views.ts';

/** An operation's progress is told at most that often: nobody reads faster. */
const PROGRESS_INTERVAL_MS = 100;

export type TellProgress = (operation: Operation, record: OperationRecord) => void;

export class Progress {
  readonly #engine: OperationEngine;
  readonly #listeners = new Set<TellProgress>();
  /** what was told last, by operation */
  readonly #told = new Map<string, { readonly phase: string; readonly atMs: number }>();
  /** the engine is listened to as long as anybody listens here */
  #unlisten: (() => void) | undefined;

  constructor(engine: OperationEngine) {
    this.#engine = engine;
  }

  /** Tells each change of phase, progress now and then, and the end. @returns how to stop */
  listen(tell: TellProgress): () => void {
    this.#listeners.add(tell);
    this.#unlisten ??= this.#engine.listenToAll((live) => this.#changed(live));
    return () => this.#leave(tell);
  }

  #leave(tell: TellProgress): void {
    this.#listeners.delete(tell);
    if (this.#listeners.size > 0) return;
    this.#unlisten?.();
    this.#unlisten = undefined;
    this.#told.clear();
  }

  #changed(live: LiveOperation): void {
    const { id, state } = live.record;
    const operation = operationSummary(live.record, live);
    const last = this.#told.get(id);
    const now = Date.now();
    if (state === 'running' && last?.phase === operation.phase && now - last.atMs < PROGRESS_INTERVAL_MS)
      return;
    if (state === 'running') this.#told.set(id, { phase: operation.phase, atMs: now });
    else this.#told.delete(id);
    for (const tell of this.#listeners) tell(operation, live.record);
  }
}
