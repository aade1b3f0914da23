/** Operations under way, for whoever watches all of them: each change of phase, progress now and then, and the end. */
import type { Operation } from '../api/schemas.ts';
import type { OperationRecord } from '../catalog/operations.ts';
import type { OperationEngine } from '../operations/engine.ts';
import { operationSummary } from './views.ts';

export type TellProgress = (operation: Operation, record: OperationRecord) => void;

export class Progress {
  readonly #engine: OperationEngine;
  readonly #intervalMs: () => number;

  /** @param intervalMs an operation's progress is told at most that often */
  constructor(engine: OperationEngine, intervalMs: () => number) {
    this.#engine = engine;
    this.#intervalMs = intervalMs;
  }

  /** @returns how to stop */
  listen(tell: TellProgress): () => void {
    /** what was told last, by operation */
    const told = new Map<string, { readonly phase: string | undefined; readonly atMs: number }>();
    return this.#engine.listenToAll((live) => {
      const { id, state } = live.record;
      const phase = live.steps.at(-1)?.name;
      const last = told.get(id);
      const now = Date.now();
      const isNews = state !== 'running' || last === undefined || last.phase !== phase;
      if (!isNews && now - last.atMs < this.#intervalMs()) return;
      if (state === 'running') told.set(id, { phase, atMs: now });
      else told.delete(id);
      tell(operationSummary(live.record, live), live.record);
    });
  }
}
