/**
 * Ends the guests as planned, and plans again while it goes: every second and after each save, by the speed that the
 * saves really have. A guest whose save no longer fits is shut down while there is time for it, not when there is none left.
 */
import { findImage } from '../catalog/images.ts';
import { DEFAULT_IMAGE } from '../api/constants.ts';
import { StasisError } from '../errors.ts';
import type { Host } from '../guests/host.ts';
import { manifestOf } from '../images/load.ts';
import type { OperationEngine } from '../operations/engine.ts';
import type { LiveOperation } from '../operations/operation.ts';
import type { OperationHandle } from '../operations/procedure.ts';
import { isHopeless, planEnds, type Candidate, type Means, type PlannedEnd } from './budget.ts';
import { goDown, type Descent, type Ladder } from './ladder.ts';
import { savesUntilMs, shutdownReserveMs } from './reserve.ts';
import { freeBytes, type Survey } from './survey.ts';

const LOOK_EVERY_MS = 1_000;
/** The speed that was expected counts as if it had been seen for so long. */
const EXPECTATION_MS = 2_000;

interface Undertaking {
  readonly host: Host;
  readonly engine: OperationEngine;
  readonly operation: OperationHandle;
  readonly found: Survey;
  readonly budgetMs: number;
  /** when it began, on the clock of `performance.now` */
  readonly beganMs: number;
}

interface RunningSave {
  readonly candidate: Candidate;
  readonly beganMs: number;
  readonly giveUp: AbortController;
  operation: string | null;
}

export class EndOfGuests {
  readonly #undertaking: Undertaking;
  readonly #ladder: Ladder;
  readonly #saves = new Map<string, RunningSave>();
  readonly #descents: Promise<void>[] = [];
  readonly #ended: Descent[] = [];
  #waiting: readonly Candidate[] = [];
  #change = Promise.withResolvers<void>();
  #savesBeganMs = 0;
  #savesEndedMs = 0;
  /** as it was reckoned with, and as it really was written */
  #savedBytes = 0;
  #writtenBytes = 0;

  constructor(undertaking: Undertaking) {
    this.#undertaking = undertaking;
    const { host, engine, operation, budgetMs, beganMs } = undertaking;
    const untilMs = beganMs + savesUntilMs(budgetMs);
    this.#ladder = { host, engine, signal: operation.signal, leftMs: () => untilMs - performance.now() };
  }

  /** Resolves with how it went for each guest. @throws when it is called off, after all that was begun has ended */
  async run(): Promise<readonly Descent[]> {
    const { found, operation } = this.#undertaking;
    this.#savesBeganMs = performance.now();
    this.#carryOut(planEnds(found.candidates, { ...found.means, timeMs: this.#ladder.leftMs() }));
    while (this.#waiting.length + this.#saves.size > 0 && !operation.signal.aborted) {
      await this.#nextLook();
      this.#carryOut(planEnds(this.#waiting, await this.#means()));
      this.#giveUpHopeless();
    }
    const ended = await Promise.allSettled(this.#descents);
    operation.signal.throwIfAborted();
    for (const result of ended) if (result.status === 'rejected') throw result.reason;
    return this.#ended;
  }

  /** What all saves together wrote, and in what time; null when nothing was saved. */
  get written(): { readonly bytes: number; readonly durationMs: number } | null {
    if (this.#writtenBytes === 0) return null;
    return { bytes: this.#writtenBytes, durationMs: this.#savesEndedMs - this.#savesBeganMs };
  }

  /** Begins as many saves as may run at once; all that isn't to be saved goes down now. */
  #carryOut(plan: readonly PlannedEnd[]): void {
    const { parallel } = this.#undertaking.found.means;
    const waiting: Candidate[] = [];
    for (const planned of plan) {
      if (planned.action !== 'save') this.#begin(goDown(this.#ladder, planned));
      else if (this.#saves.size < parallel) this.#beginSave(planned);
      else waiting.push(planned.candidate);
    }
    this.#waiting = waiting;
  }

  #beginSave(planned: PlannedEnd): void {
    const { candidate } = planned;
    const save: RunningSave = {
      candidate,
      beganMs: performance.now(),
      giveUp: new AbortController(),
      operation: null,
    };
    this.#saves.set(candidate.guest, save);
    const descent = goDown(this.#ladder, planned, {
      signal: save.giveUp.signal,
      onBegun: (id) => {
        save.operation = id;
        void this.#freeSlotAfter(save, id);
      },
    });
    this.#begin(
      descent.finally(() => {
        this.#endSave(save);
      }),
    );
  }

  /** A save that failed leaves its place to the next one, while its guest goes on down. */
  async #freeSlotAfter(save: RunningSave, id: string): Promise<void> {
    await this.#undertaking.engine.whenEnded(id);
    this.#endSave(save);
  }

  #endSave({ candidate }: RunningSave): void {
    if (!this.#saves.delete(candidate.guest)) return;
    this.#savesEndedMs = performance.now();
    this.#change.resolve();
  }

  #begin(descent: Promise<Descent>): void {
    const told = descent.then((ended) => this.#tell(ended));
    // It is looked at when all have ended; until then nobody may think that nobody will.
    told.catch(() => undefined);
    this.#descents.push(told);
  }

  async #tell(descent: Descent): Promise<void> {
    this.#ended.push(descent);
    const { candidate, outcome } = descent;
    const { operation } = this.#undertaking;
    await operation.outcome(outcome);
    await operation.publish({
      type: 'guest',
      action: 'host-shutdown',
      guest: candidate.name,
      message: `${candidate.name} was ended for the host: ${outcome.message}`,
    });
    if (descent.isSaved) await this.#count(candidate);
  }

  async #count(candidate: Candidate): Promise<void> {
    this.#savedBytes += candidate.bytes;
    const image = await findImage(this.#undertaking.host.catalog, candidate.guest, DEFAULT_IMAGE);
    if (image !== undefined) this.#writtenBytes += manifestOf(image).bytesWritten ?? 0;
  }

  /** What there is for those that still wait. */
  async #means(): Promise<Means> {
    const { found, host } = this.#undertaking;
    const underWay = [...this.#saves.values()].map((save) => ({
      remainingBytes: save.candidate.bytes * (1 - this.#fractionOf(save)),
    }));
    const seenBytes = [...this.#saves.values()].reduce(
      (sum, save) => sum + save.candidate.bytes * this.#fractionOf(save),
      this.#savedBytes,
    );
    const seenMs = performance.now() - this.#savesBeganMs;
    const expectedBytes = (found.means.bytesPerSecond * EXPECTATION_MS) / 1000;
    return {
      ...found.means,
      bytesPerSecond: ((expectedBytes + seenBytes) / (EXPECTATION_MS + seenMs)) * 1000,
      timeMs: this.#ladder.leftMs(),
      freeBytes: await freeBytes(host),
      underWay,
    };
  }

  #giveUpHopeless(): void {
    for (const save of this.#saves.values()) {
      const progress = { elapsedMs: performance.now() - save.beganMs, fraction: this.#fractionOf(save) };
      if (isHopeless(progress, this.#ladder.leftMs(), shutdownReserveMs(this.#undertaking.budgetMs)))
        save.giveUp.abort(new StasisError('timeout', 'its save would not have ended in time'));
    }
  }

  #fractionOf({ operation }: RunningSave): number {
    const live = operation === null ? undefined : this.#undertaking.engine.live(operation);
    return live === undefined ? 0 : fractionSaved(live);
  }

  async #nextLook(): Promise<void> {
    const timer = setTimeout(this.#change.resolve, LOOK_EVERY_MS);
    const abort = () => this.#change.resolve();
    const { signal } = this.#undertaking.operation;
    signal.addEventListener('abort', abort, { once: true });
    await this.#change.promise;
    signal.removeEventListener('abort', abort);
    clearTimeout(timer);
    this.#change = Promise.withResolvers<void>();
  }
}

/** Of the memory: all of it once the capture is over. */
function fractionSaved({ steps, bytesDone, bytesTotal }: LiveOperation): number {
  const step = steps.at(-1)?.name;
  if (step === 'capture') return bytesTotal === 0 ? 0 : Math.min(1, bytesDone / bytesTotal);
  return steps.some(({ name }) => name === 'capture') ? 1 : 0;
}
