/**
 * The file systems of a guest brought to rest for the instant of a save: what its programs have written is on the disks, and
 * the disks of the image need no repair. Only the guest can do that; its agent is asked (qemu-guest-agent, which on Windows
 * asks the writers of VSS too).
 *
 * Whoever writes in a frozen guest waits. So it is frozen as late and thawed as early as can be, and never for long:
 * each way has its limit, after which the save goes on without. What came of it is a fact of the image.
 */
import { setFrozen } from '../catalog/guests.ts';
import { messageOf, StasisError } from '../errors.ts';
import type { QemuProcess } from '../qemu/process/process.ts';
import { waitFor } from '../qemu/wait.ts';
import { contactAgent } from './agent.ts';
import type { Definition } from './definition.ts';
import { thawIfFrozen } from './frozen.ts';
import type { Host } from './host.ts';

/** `true`: if it can be; `'require'`: or there is no save. */
export type QuiesceWish = boolean | 'require';

export interface QuiesceReport {
  readonly outcome: 'frozen' | 'skipped' | 'failed';
  /** why it isn't frozen */
  readonly reason: string | null;
  /** from the request to freeze to the answer that it is thawed; null when nobody thawed it, or it was not frozen */
  readonly frozenMs: number | null;
  /** the memory of the image is that of a frozen guest, or may be: it must be thawed when it runs again */
  readonly isInMemory: boolean;
}

/** The agent of a guest has so long to be found and to freeze everything. It is asked while the guest runs on. */
const FREEZE_BUDGET_MS = 12_000;
/** A frozen guest that is not stopped by then is thawed. Windows thaws by itself after ten seconds. */
const FROZEN_LIMIT_MS = 5_000;

/** Why nobody needs to ask a guest to freeze; undefined when it can be asked. */
export function whyNotQuiesce(
  wish: QuiesceWish,
  definition: Definition,
  isRunning: boolean,
): string | undefined {
  if (wish === false) return 'not asked for';
  if (!isRunning) return 'the guest was paused';
  return definition.agent ? undefined : 'the guest was defined without an agent';
}

/** One freeze of one guest, around one stop. */
export class Quiesce implements AsyncDisposable {
  readonly #host: Host;
  readonly #uuid: string;
  readonly #process: QemuProcess;
  readonly #isRequired: boolean;
  readonly #tooLong = new AbortController();
  #outcome: QuiesceReport['outcome'] = 'skipped';
  #reason: string | null;
  #askedAt: number | undefined;
  #frozenMs: number | null = null;
  #isInMemory = false;
  #limit: NodeJS.Timeout | undefined;
  #thawing: Promise<void> = Promise.resolve();
  #notThawed: string | null = null;

  /** @param skipped why it isn't even tried */
  constructor(
    host: Host,
    uuid: string,
    process: QemuProcess,
    how: { isRequired: boolean; skipped?: string | undefined },
  ) {
    this.#host = host;
    this.#uuid = uuid;
    this.#process = process;
    this.#isRequired = how.isRequired;
    this.#reason = how.skipped ?? null;
  }

  get isWanted(): boolean {
    return this.#reason === null || this.#outcome !== 'skipped';
  }

  /** Aborted when a guest that has to be frozen was thawed because its stop didn't come. */
  get signal(): AbortSignal {
    return this.#tooLong.signal;
  }

  /** How it went; final when the guest has run again or is gone. */
  get report(): QuiesceReport {
    const [outcome, reason, frozenMs, isInMemory] = [
      this.#outcome,
      this.#reason,
      this.#frozenMs,
      this.#isInMemory,
    ];
    return { outcome, reason, frozenMs, isInMemory };
  }

  /**
   * Asks the agent to freeze all file systems. Does it once, however often it is called.
   * @throws StasisError `quiesce-failed` when it has to be and can't; `cancelled`
   */
  async freeze(signal: AbortSignal): Promise<void> {
    if (!this.isWanted || this.#outcome !== 'skipped') return;
    try {
      await using agent = await contactAgent(this.#process, { budgetMs: FREEZE_BUDGET_MS });
      await setFrozen(this.#host.catalog, this.#uuid, true);
      this.#askedAt = performance.now();
      const count = await waitFor('the freeze', agent.freeze(), { signal });
      if (count === 0)
        throw new StasisError('qemu-failed', 'the guest has no file system that can be frozen');
      this.#outcome = 'frozen';
      this.#limit = setTimeout(() => void this.#giveUp(), FROZEN_LIMIT_MS);
    } catch (error) {
      if (signal.aborted) throw error;
      await this.#fail(messageOf(error));
      if (this.#isRequired) throw quiesceFailed(this.#reason);
    }
  }

  /** The guest stands still: what is true of it now is true of the image. */
  standsStill(): void {
    clearTimeout(this.#limit);
    this.#isInMemory = this.#askedAt !== undefined;
  }

  /** The guest runs again, or the stop was given up. Never throws for what the guest doesn't do: it stays recorded as frozen. */
  async thaw(): Promise<void> {
    clearTimeout(this.#limit);
    // An agent has one conversation at a time.
    await this.#thawing;
    this.#thawing = this.#thaw();
    await this.#thawing;
  }

  async #thaw(): Promise<void> {
    if (this.#askedAt === undefined) return;
    const outcome = await thawIfFrozen(this.#host, this.#uuid);
    this.#notThawed = outcome?.outcome === 'failed' ? outcome.message : null;
    if (outcome?.outcome !== 'done') return;
    this.#frozenMs = performance.now() - this.#askedAt;
    this.#askedAt = undefined;
  }

  /** What the user should know although there is an image. */
  get warnings(): readonly string[] {
    const { outcome, reason } = this.report;
    return [
      ...(outcome === 'failed' ? [`the guest's file systems were not frozen: ${reason}`] : []),
      ...(this.#notThawed === null ? [] : [this.#notThawed]),
    ];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.thaw();
  }

  /** What was asked for may have been done all the same. */
  async #fail(reason: string): Promise<void> {
    this.#outcome = 'failed';
    this.#reason = reason;
    await this.thaw();
  }

  async #giveUp(): Promise<void> {
    try {
      await this.#fail(`the guest was not stopped within ${FROZEN_LIMIT_MS / 1000} s, and was thawed`);
    } catch (error) {
      this.#host.log.error({ err: error, guest: this.#uuid }, 'a frozen guest could not be thawed');
    }
    if (this.#isRequired) this.#tooLong.abort(quiesceFailed(this.#reason));
  }
}

export function quiesceFailed(reason: string | null): StasisError {
  return new StasisError(
    'quiesce-failed',
    `the guest's file systems could not be frozen: ${reason}; with --quiesce instead of --require-quiesce it is saved all the same`,
    { details: { reason } },
  );
}
