/** The life of one operation: planned and journaled, run to its commit and finished, or undone; the same again after a crash. */
import type { Transaction } from 'kysely';
import type { OperationKind, Outcome } from '../api/schemas.ts';
import type { AuditInput } from '../catalog/audit.ts';
import type { CatalogDatabase } from '../catalog/database.ts';
import {
  insertOperation,
  markCommitted,
  markSettled,
  trimOperations,
  updateOperation,
  type OperationRecord,
} from '../catalog/operations.ts';
import type { Tables } from '../catalog/schema.ts';
import { StasisError, type ErrorBody } from '../errors.ts';
import { inLogScope, type Log } from '../log.ts';
import { fromStored } from '../stored.ts';
import type { AuditTrail } from './audit-trail.ts';
import type { EventInput, EventLog } from './event-log.ts';
import type { OperationHandle, Procedure, Subject } from './procedure.ts';

// A procedure is only ever called with what its own `plan` returned: the pairing is kept by its name.
export type AnyProcedure = Procedure<unknown, unknown>;

export interface Step {
  readonly name: string;
  readonly at: string;
}

/** An operation that this process is running: its record and what is only known while it runs. */
export interface LiveOperation {
  readonly record: OperationRecord;
  readonly steps: readonly Step[];
  readonly bytesDone: number;
  readonly bytesTotal: number;
  readonly cancellable: boolean;
}

/** What tells a request that is sent again from another. */
export interface RequestTag {
  /** the caller and the key it chose */
  readonly key: string;
  /** of what is asked for: SHA-256, hexadecimal */
  readonly hash: string;
}

export interface Submission<Args> {
  /** what the user asked for; the procedure may be another's, as a start that restores */
  readonly kind: OperationKind;
  readonly subject: Subject;
  readonly args: Args;
  /** who asks, as JSON; without it the daemon itself */
  readonly caller?: string;
  /** by which request, if that may be sent again */
  readonly request?: RequestTag | undefined;
}

/** What an operation is given by the engine that runs it. */
export interface Surroundings {
  readonly catalog: CatalogDatabase;
  readonly events: EventLog;
  readonly audit: AuditTrail;
  readonly log: Log;
  failpoint(name: string, guest: string | null): Promise<void>;
  changed(operation: LiveOperation): void;
  started(operation: RunningOperation): void;
  /** @param isOver whether it is settled, and that is recorded */
  ended(operation: RunningOperation, isOver: boolean): void;
  whileHolding(
    operation: RunningOperation,
    guests: readonly string[],
    body: () => Promise<void>,
  ): Promise<boolean>;
  createChild<Args, Plan>(
    procedure: Procedure<Args, Plan>,
    submission: Submission<Args>,
    parent: string,
  ): RunningOperation;
}

export class RunningOperation implements LiveOperation, OperationHandle {
  record: OperationRecord;
  bytesDone = 0;
  bytesTotal = 0;
  readonly recovering: boolean;
  /** under whose hold on the guest it is settled, if not its own */
  readonly heldBy: RunningOperation | undefined;
  readonly #around: Surroundings;
  readonly #procedure: AnyProcedure;
  readonly #abort = new AbortController();
  readonly #over = Promise.withResolvers<void>();
  #steps: Step[];
  #warnings: string[];

  constructor(
    around: Surroundings,
    procedure: AnyProcedure,
    record: OperationRecord,
    recovering: boolean,
    heldBy?: RunningOperation,
  ) {
    this.heldBy = heldBy;
    this.#around = around;
    this.#procedure = procedure;
    this.record = record;
    this.recovering = recovering;
    this.#steps = fromStored<Step[]>(record.steps);
    this.#warnings = fromStored<string[]>(record.warnings);
  }

  get id(): string {
    return this.record.id;
  }
  get guest(): string | null {
    return this.record.guest;
  }
  get guestName(): string {
    return this.record.guestName;
  }
  get image(): string | null {
    return this.record.image;
  }
  get steps(): readonly Step[] {
    return this.#steps;
  }
  get outcomes(): readonly Outcome[] {
    return fromStored<Outcome[]>(this.record.outcomes);
  }
  get signal(): AbortSignal {
    return this.#abort.signal;
  }
  get cancellable(): boolean {
    return this.#procedure.cancellable && this.record.committed === 0 && this.record.state === 'running';
  }
  /** Is what is left of it too long for others to wait for? */
  get isLong(): boolean {
    return this.#procedure.finishesLong === true && this.record.committed === 1;
  }

  /** To whatever can wait less than itself. */
  givesWayTo(other: Pick<AnyProcedure, 'givesWay' | 'cancellable'>): boolean {
    const { givesWay, cancellable } = this.#procedure;
    if (givesWay === undefined) return false;
    const isAsked = other.givesWay !== 'always' || other.cancellable;
    if (this.record.committed === 1 || !cancellable) return givesWay === 'always' && isAsked;
    return other.givesWay === undefined; // what it did is given up
  }

  /** Resolves, never rejects, when it has let go of its guest. */
  get over(): Promise<void> {
    return this.#over.promise;
  }

  /** Resolves when it has let go of its guest. */
  async giveWay(): Promise<void> {
    this.#abort.abort(
      new StasisError('cancelled', `the ${this.record.kind} gave way to something else that was to be done`),
    );
    await this.#over.promise;
  }

  letGo(): void {
    this.#over.resolve();
  }

  cancel(): void {
    if (!this.cancellable) {
      throw new StasisError(
        'invalid-state',
        `this ${this.record.kind} of ${this.guestName} can't be cancelled any more: it is being finished`,
        { guest: this.guestName },
      );
    }
    this.#abort.abort(
      new StasisError('cancelled', `the ${this.record.kind} was cancelled`, {
        guest: this.guestName,
        ...(this.image === null ? {} : { image: this.image }),
      }),
    );
  }

  /** Plans and journals: until this returns, nothing has been touched. */
  begin(args: unknown): Promise<void> {
    return this.#logged(() => this.#begin(args));
  }

  async #begin(args: unknown): Promise<void> {
    try {
      const plan = await this.#procedure.plan(args, this);
      this.record = { ...this.record, plan: JSON.stringify(plan) };
      await insertOperation(this.#around.catalog, this.record);
    } catch (error) {
      throw this.#explain(error);
    }
    try {
      await this.failpoint('record:after');
      this.#around.started(this);
      this.#around.log.info({}, `${this.#what} begins`);
      await this.#publishState();
    } catch (error) {
      const failure = this.#explain(error);
      await this.#end('failed', failure, true); // nothing has been touched yet
      throw failure;
    }
  }

  /** The whole life of an operation that has begun. Rejects with why it failed, when everything is undone. */
  work(): Promise<void> {
    return this.#logged(() => this.#work());
  }

  async #work(): Promise<void> {
    let failure: StasisError | undefined;
    let settled = true;
    try {
      await this.#procedure.run(this.#plan, this);
      failure = (await this.#procedure.finish(this.#plan, this)) ?? undefined;
    } catch (error) {
      failure = this.#explain(error);
      settled = this.record.committed === 0 && (await this.#undo());
    }
    await this.#end(stateAfter(failure), failure, settled);
    if (failure !== undefined) throw failure;
  }

  /**
   * The same after a crash: finished when it was committed, undone when not.
   * @returns why it still could not be settled, if so; never throws
   */
  recover(): Promise<StasisError | undefined> {
    return this.#logged(() => this.#recover());
  }

  async #recover(): Promise<StasisError | undefined> {
    const { committed, error } = this.record;
    this.#around.log.info({ committed }, `recovering ${this.#what}`);
    const before = error === null ? undefined : StasisError.fromJSON(fromStored<ErrorBody>(error));
    try {
      const failure =
        committed === 1 ? await this.#procedure.finish(this.#plan, this) : await this.#takeBack(before);
      await this.#end(stateAfter(failure ?? undefined), failure ?? undefined, true);
      return undefined;
    } catch (caught) {
      const failure = this.#explain(caught);
      this.#around.log.error({ err: caught }, 'recovery failed');
      await this.#end('failed', failure, false);
      return failure;
    }
  }

  /** @returns what the operation failed with: what it was before, or that it was interrupted */
  async #takeBack(before: StasisError | undefined): Promise<StasisError> {
    await this.#procedure.undo(this.#plan, this);
    return (
      before ??
      this.#explain(
        new StasisError('interrupted', `the daemon ended during this ${this.record.kind}; it was undone`),
      )
    );
  }

  reached(step: string): boolean {
    return this.#steps.some(({ name }) => name === step);
  }

  async step<T>(name: string, body: () => Promise<T>): Promise<T> {
    this.#steps = [...this.#steps, { name, at: new Date().toISOString() }];
    this.bytesDone = 0;
    this.bytesTotal = 0;
    await updateOperation(this.#around.catalog, this.id, { steps: JSON.stringify(this.#steps) });
    this.#around.changed(this);
    await this.failpoint(`${name}:before`);
    const result = await body();
    await this.failpoint(`${name}:after`);
    return result;
  }

  failpoint(name: string): Promise<void> {
    return this.#around.failpoint(`${this.#procedure.name}/${name}`, this.guest);
  }

  async commit(body: (transaction: Transaction<Tables>) => Promise<void>): Promise<void> {
    this.signal.throwIfAborted();
    await this.step('commit', async () => {
      await this.#around.catalog.transaction().execute(async (transaction) => {
        await body(transaction);
        await markCommitted(transaction, this.id);
      });
      this.record = { ...this.record, committed: 1 };
    });
    this.#around.changed(this);
  }

  progress(bytesDone: number, bytesTotal: number): void {
    this.bytesDone = bytesDone;
    this.bytesTotal = bytesTotal;
    this.#around.changed(this);
  }

  async warn(message: string): Promise<void> {
    this.#warnings = [...this.#warnings, message];
    this.record = { ...this.record, warnings: JSON.stringify(this.#warnings) };
    await updateOperation(this.#around.catalog, this.id, { warnings: this.record.warnings });
  }

  async outcome(outcome: Outcome): Promise<void> {
    const others = this.outcomes.filter(({ name }) => name !== outcome.name);
    this.record = { ...this.record, outcomes: JSON.stringify([...others, outcome]) };
    await updateOperation(this.#around.catalog, this.id, { outcomes: this.record.outcomes });
  }

  whileHolding(guests: readonly string[], body: () => Promise<void>): Promise<boolean> {
    return this.#around.whileHolding(this, guests, body);
  }

  publish(event: EventInput): Promise<void> {
    return this.#around.events.publish({ guest: this.guestName, operation: this.id, ...event });
  }

  async child<Args, Plan>(
    kind: OperationKind,
    procedure: Procedure<Args, Plan>,
    args: Args,
    image: string | null,
  ): Promise<void> {
    const child = this.#around.createChild(
      procedure,
      {
        ...{ kind, subject: { guest: this.guest, guestName: this.guestName, image }, args },
        ...(this.record.caller === null ? {} : { caller: this.record.caller }),
      },
      this.id,
    );
    const cancelChild = () => child.cancellable && child.cancel();
    this.signal.addEventListener('abort', cancelChild);
    try {
      await child.begin(args);
      await child.work();
    } finally {
      this.signal.removeEventListener('abort', cancelChild);
    }
  }

  get #plan(): unknown {
    return JSON.parse(this.record.plan);
  }

  /** @returns whether everything is undone; if not, it is tried again before the guest's next operation */
  async #undo(): Promise<boolean> {
    try {
      await this.#procedure.undo(this.#plan, this);
      return true;
    } catch (error) {
      this.#around.log.error({ err: error }, 'undoing failed');
      await this.#warnIfPossible(
        `undoing it failed too, and will be tried again: ${StasisError.from(error).message}`,
      );
      return false;
    }
  }

  /** What kept it from being undone may keep the warning from being written: the same full disk. */
  async #warnIfPossible(message: string): Promise<void> {
    try {
      await this.warn(message);
    } catch (error) {
      this.#around.log.error({ err: error }, 'a warning could not be recorded');
    }
  }

  /** What went wrong, told of the guest and image; a cancellation is told as that, whatever broke on its way out. */
  #explain(error: unknown): StasisError {
    if (this.signal.aborted && this.record.committed === 0) return StasisError.from(this.signal.reason);
    const explained = StasisError.from(error);
    if (explained.code === 'internal') this.#around.log.error({ err: error }, 'internal error');
    return explained.about({ guest: this.guestName, image: this.image ?? undefined });
  }

  async #end(
    state: OperationRecord['state'],
    failure: StasisError | undefined,
    settled: boolean,
  ): Promise<void> {
    const error = failure === undefined ? null : JSON.stringify(failure);
    let isOver = false;
    const finishedAt = new Date().toISOString();
    this.record = { ...this.record, state, error, finishedAt, steps: JSON.stringify(this.#steps) };
    try {
      await this.#around.audit.appendWith(
        async (transaction) => {
          await updateOperation(transaction, this.id, { state, error, finishedAt });
          if (settled) await markSettled(transaction, this.id);
        },
        this.#outcomeEntry(state, failure),
      );
      isOver = settled;
      this.#logEnd(failure);
      await this.#publishState();
      await trimOperations(this.#around.catalog);
    } catch (caught) {
      // The catalog can't be written, say on a full disk: who waits is told all the same, and recovery comes again.
      this.#around.log.error({ err: caught }, 'the end of an operation could not be recorded');
    } finally {
      this.#around.ended(this, isOver);
      this.#around.changed(this);
    }
  }

  /** Whatever is logged meanwhile tells that it is for this operation. */
  #logged<T>(work: () => Promise<T>): Promise<T> {
    const { kind, parent, image } = this.record;
    const fields = { operation: this.id, kind, guest: this.guestName };
    return inLogScope(
      { ...fields, ...(image === null ? {} : { image }), ...(parent === null ? {} : { parent }) },
      work,
    );
  }

  #logEnd(failure: StasisError | undefined): void {
    const tookMs = Date.parse(this.record.finishedAt ?? '') - Date.parse(this.record.createdAt);
    const { log } = this.#around;
    if (failure === undefined) log.info({ tookMs }, `${this.#what} done`);
    else log.warn({ tookMs, code: failure.code }, `${this.#what} ${this.record.state}: ${failure.message}`);
  }

  #outcomeEntry(state: OperationRecord['state'], failure: StasisError | undefined): AuditInput {
    const { id, kind, caller, guestName, image, finishedAt } = this.record;
    return {
      ...{ at: finishedAt ?? '', kind: 'outcome', caller, action: kind, guest: guestName, image },
      ...{ parameters: null, outcome: failure?.code ?? state, operation: id, request: null },
      message: failure?.message ?? null,
    };
  }

  get #what(): string {
    const { kind, image } = this.record;
    return `${kind} ${this.guestName}${image === null ? '' : ` / ${image}`}`;
  }

  #publishState(): Promise<void> {
    const { state, error } = this.record;
    const reason = error === null ? '' : `: ${fromStored<{ message: string }>(error).message}`;
    return this.publish({
      type: 'operation',
      action: state,
      image: this.image,
      message: `${this.#what} ${state}${reason}`,
    });
  }
}

function stateAfter(failure: StasisError | undefined): OperationRecord['state'] {
  if (failure === undefined) return 'done';
  return failure.code === 'cancelled' ? 'cancelled' : 'failed';
}
