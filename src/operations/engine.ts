/**
 * Runs procedures as durable operations: one at a time per guest, journaled, with progress, cancellable, and
 * finished or undone after a crash.
 */
import { EventEmitter } from 'node:events';
import type { Transaction } from 'kysely';
import type { OperationKind, Outcome } from '../api/schemas.ts';
import type { AuditInput } from '../catalog/audit.ts';
import type { CatalogDatabase } from '../catalog/database.ts';
import {
  findOperation,
  operationNotFound,
  insertOperation,
  markCommitted,
  trimOperations,
  unsettledOperations,
  markSettled,
  updateOperation,
  type OperationRecord,
} from '../catalog/operations.ts';
import type { Tables } from '../catalog/schema.ts';
import { StasisError, type ErrorBody } from '../errors.ts';
import { newId } from '../ids.ts';
import { inLogScope, type Log } from '../log.ts';
import type { AuditTrail } from './audit-trail.ts';
import type { EventInput, EventLog } from './event-log.ts';
import { Failpoints } from './failpoints.ts';
import type { OperationHandle, Procedure, Subject } from './procedure.ts';
import { fromStored } from '../stored.ts';

// A procedure is only ever called with what its own `plan` returned: the pairing is kept by its name.
type AnyProcedure = Procedure<unknown, unknown>;

/** So long after it what could not be settled is tried again, and twice as long each time after that. */
const RETRY_MS = 5_000;
const MOST_RETRY_MS = 300_000;

/** Among the listeners' ids: those who want to hear of every operation. */
const ALL = '*';

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

export interface EngineOptions {
  readonly catalog: CatalogDatabase;
  readonly events: EventLog;
  readonly audit: AuditTrail;
  readonly log: Log;
  readonly failpoints?: Failpoints;
  /** for failpoints: ends a guest's QEMU process */
  readonly killGuest?: (guest: string) => Promise<void>;
  /** how long after it what could not be settled is first tried again, in milliseconds */
  readonly retryMs?: number;
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

export class OperationEngine implements Disposable {
  readonly #options: EngineOptions;
  readonly #failpoints: Failpoints;
  readonly #procedures = new Map<string, AnyProcedure>();
  readonly #running = new Map<string, RunningOperation>();
  /** which operation holds a guest, by UUID, or by name while it has none */
  readonly #holders = new Map<string, RunningOperation>();
  /** which operations only read of a guest */
  readonly #readers = new Map<string, Set<RunningOperation>>();
  readonly #ended = new EventEmitter<{ ended: [OperationRecord] }>();
  readonly #changes = new EventEmitter<Record<string, [LiveOperation]>>().setMaxListeners(0);
  #retry: NodeJS.Timeout | undefined;
  #retryMs: number;

  constructor(options: EngineOptions) {
    this.#options = options;
    this.#retryMs = options.retryMs ?? RETRY_MS;
    this.#failpoints = options.failpoints ?? new Failpoints();
  }

  /** Makes a procedure known, so that its operations can be recovered. */
  register<Args, Plan>(procedure: Procedure<Args, Plan>): void {
    this.#procedures.set(procedure.name, procedure);
  }

  /**
   * Plans an operation, journals it and starts it.
   * @returns the operation's id as soon as the plan is on disk; `settled` resolves when the work has ended
   * @throws StasisError `busy` when another operation holds the guest, or whatever the plan finds impossible
   */
  async submit<Args, Plan>(
    procedure: Procedure<Args, Plan>,
    submission: Submission<Args>,
  ): Promise<{ id: string; settled: Promise<void> }> {
    const { guest, guestName, source } = submission.subject;
    const key = guest ?? guestName;
    if (procedure.givesWay !== true) for (const name of [key, source]) await this.#clearTheWay(name);
    const holder = this.#occupant(key) ?? (source === undefined ? undefined : this.#holders.get(source));
    if (holder !== undefined) throw busy(holder.record);
    const operation = this.#create(procedure, submission, null);
    this.#holders.set(key, operation);
    if (source !== undefined) this.#readersOf(source).add(operation);
    try {
      if (guest !== null) await this.#settle(guest, operation);
      await operation.begin(submission.args);
    } catch (error) {
      this.#release(operation);
      throw error;
    }
    const settled = operation.work();
    // Whoever waits hears the failure; the journal has it in any case.
    settled.catch(() => undefined);
    return { id: operation.record.id, settled };
  }

  /** What can wait is undone first. Once it is past that, it is as busy as anything. */
  async #clearTheWay(guest: string | undefined): Promise<void> {
    const holder = guest === undefined ? undefined : this.#holders.get(guest);
    if (holder?.givesWay === true) await holder.giveWay();
  }

  #occupant(guest: string): RunningOperation | undefined {
    return this.#holders.get(guest) ?? [...(this.#readers.get(guest) ?? [])][0];
  }

  #readersOf(guest: string): Set<RunningOperation> {
    const readers = this.#readers.get(guest) ?? new Set();
    this.#readers.set(guest, readers);
    return readers;
  }

  async #whileHolding(
    operation: RunningOperation,
    guests: readonly string[],
    body: () => Promise<void>,
  ): Promise<boolean> {
    const isOurs = (holder: RunningOperation | undefined) =>
      holder !== undefined &&
      (holder === operation || holder === operation.heldBy || holder.id === operation.record.parent);
    const others = guests.filter((guest) => !isOurs(this.#holders.get(guest)));
    if (others.some((guest) => this.#occupant(guest) !== undefined)) return false;
    for (const guest of others) this.#holders.set(guest, operation);
    try {
      await body();
      return true;
    } finally {
      for (const guest of others) this.#holders.delete(guest);
    }
  }

  /** The operation under way on a guest, if any. */
  holderOf(guest: string): LiveOperation | undefined {
    return this.#holders.get(guest);
  }

  live(id: string): LiveOperation | undefined {
    return this.#running.get(id);
  }

  /** All that is under way. */
  running(): LiveOperation[] {
    return [...this.#running.values()];
  }

  /** @throws StasisError `operation-not-found`, or `invalid-state` when it is past its point of no return */
  async cancel(id: string): Promise<void> {
    const running = this.#running.get(id);
    if (running === undefined) {
      const record = await findOperation(this.#options.catalog, id);
      if (record === undefined) throw operationNotFound(id);
      throw new StasisError(
        'invalid-state',
        `operation ${id} (${record.kind} ${record.guestName}) has ended: ${record.state}`,
      );
    }
    running.cancel();
  }

  /** Calls back on every change of an operation that runs here. @returns how to stop */
  listen(id: string, listener: (operation: LiveOperation) => void): () => void {
    this.#changes.on(id, listener);
    return () => this.#changes.off(id, listener);
  }

  /** Calls back on every change of whatever runs here. @returns how to stop */
  listenToAll(listener: (operation: LiveOperation) => void): () => void {
    return this.listen(ALL, listener);
  }

  /**
   * Resolves when an operation has ended and holds its guest no more, or came to nothing while it was planned; at once when
   * there is none. @throws the signal's reason
   */
  async whenEnded(id: string, signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    const operation = this.#find(id);
    if (operation === undefined) return;
    const aborted = Promise.withResolvers<never>();
    const abort = () => aborted.reject(signal?.reason);
    signal?.addEventListener('abort', abort, { once: true });
    try {
      await Promise.race([operation.over, aborted.promise]);
    } finally {
      signal?.removeEventListener('abort', abort);
    }
  }

  /** Also one that is only being planned: it is not told of yet, but it holds its guest. */
  #find(id: string): RunningOperation | undefined {
    return (
      this.#running.get(id) ??
      [...this.#holders.values(), ...[...this.#readers.values()].flatMap((readers) => [...readers])].find(
        (operation) => operation.id === id,
      )
    );
  }

  /** Calls back when an operation has ended and its guest is free. */
  onEnded(listener: (operation: OperationRecord) => void): void {
    this.#ended.on('ended', listener);
  }

  /** Finishes or undoes all that was under way when the last daemon ended. Called once, before any new work. */
  async recover(): Promise<void> {
    for (const record of await unsettledOperations(this.#options.catalog)) {
      const key = record.guest ?? record.guestName;
      const operation = this.#recovering(record);
      this.#holders.set(key, operation);
      // One guest that can't be put right must not keep the daemon from serving the others.
      await operation.recover();
    }
  }

  /**
   * What could be neither finished nor undone before must be, before anything new is done to the guest.
   * @param heldBy what is to be done, and holds the guest meanwhile
   * @throws StasisError why it still can't
   */
  async #settle(guest: string, heldBy: RunningOperation): Promise<void> {
    for (const record of await unsettledOperations(this.#options.catalog, guest)) {
      const failure = await this.#recovering(record, heldBy).recover();
      if (failure !== undefined) throw failure;
    }
  }

  /** Also without anything new that is to be done: a full disk is noticed to have space again by nothing else. */
  #tryAgainLater(): void {
    if (this.#retry !== undefined) return;
    this.#retry = setTimeout(() => void this.#tryAgain(), this.#retryMs).unref();
    this.#retryMs = Math.min(this.#retryMs * 2, MOST_RETRY_MS);
  }

  /** Never rejects: what fails again is tried again. */
  async #tryAgain(): Promise<void> {
    this.#retry = undefined;
    try {
      for (const record of await unsettledOperations(this.#options.catalog)) {
        const key = record.guest ?? record.guestName;
        if (this.#running.has(record.id)) continue;
        if (this.#occupant(key) !== undefined) this.#tryAgainLater();
        else await this.#settleUnlessSettled(record.id, key);
      }
      if (this.#retry === undefined) this.#retryMs = this.#options.retryMs ?? RETRY_MS;
    } catch (error) {
      this.#options.log.error({ err: error }, 'what is not settled could not be looked at');
      this.#tryAgainLater();
    }
  }

  /** It may have come to its end while it was looked for. */
  async #settleUnlessSettled(id: string, guest: string): Promise<void> {
    const record = await findOperation(this.#options.catalog, id);
    if (record?.settled !== 0 || this.#occupant(guest) !== undefined) return;
    const operation = this.#recovering(record);
    this.#holders.set(guest, operation);
    await operation.recover();
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#retry);
  }

  #recovering(record: OperationRecord, heldBy?: RunningOperation): RunningOperation {
    const procedure = this.#procedures.get(record.procedure);
    if (procedure === undefined)
      throw new Error(`operation ${record.id} is of an unknown procedure ${record.procedure}`);
    const operation = new RunningOperation(this.#shared(), procedure, record, true, heldBy);
    this.#running.set(record.id, operation);
    return operation;
  }

  /** Is nothing under way, and nothing being planned? */
  get isIdle(): boolean {
    return this.#running.size === 0 && this.#holders.size === 0;
  }

  #create<Args, Plan>(
    procedure: Procedure<Args, Plan>,
    submission: Submission<Args>,
    parent: string | null,
  ): RunningOperation {
    const { subject, caller = null, request } = submission;
    const record: OperationRecord = {
      id: newId(),
      kind: submission.kind,
      procedure: procedure.name,
      parent,
      guest: subject.guest,
      guestName: subject.guestName,
      image: subject.image,
      state: 'running',
      committed: 0,
      args: JSON.stringify(submission.args),
      plan: 'null',
      steps: '[]',
      warnings: '[]',
      outcomes: '[]',
      error: null,
      settled: 0,
      createdAt: new Date().toISOString(),
      finishedAt: null,
      caller,
      requestKey: request?.key ?? null,
      requestHash: request?.hash ?? null,
    };
    return new RunningOperation(this.#shared(), procedure, record, false);
  }

  /** The guest is free as soon as anybody can know that the operation has ended. */
  #release(operation: RunningOperation): void {
    operation.letGo();
    this.#running.delete(operation.id);
    const key = operation.guest ?? operation.guestName;
    if (this.#holders.get(key) === operation) this.#holders.delete(key);
    for (const [guest, readers] of this.#readers) {
      readers.delete(operation);
      if (readers.size === 0) this.#readers.delete(guest);
    }
  }

  #shared(): Shared {
    return {
      ...this.#options,
      failpoint: (name, guest) =>
        this.#failpoints.reach(name, async () => {
          if (guest !== null) await this.#options.killGuest?.(guest);
        }),
      changed: (operation) => {
        this.#changes.emit(operation.record.id, operation);
        this.#changes.emit(ALL, operation);
      },
      started: (operation) => this.#running.set(operation.record.id, operation),
      ended: (operation, isOver) => {
        this.#release(operation);
        this.#ended.emit('ended', operation.record);
        if (!isOver) this.#tryAgainLater();
      },
      whileHolding: (operation, guests, body) => this.#whileHolding(operation, guests, body),
      createChild: (procedure, submission, parent) => this.#create(procedure, submission, parent),
    };
  }
}

function stateAfter(failure: StasisError | undefined): OperationRecord['state'] {
  if (failure === undefined) return 'done';
  return failure.code === 'cancelled' ? 'cancelled' : 'failed';
}

function busy(holder: OperationRecord): StasisError {
  const image = holder.image === null ? '' : ` (image ${holder.image})`;
  return new StasisError(
    'busy',
    `guest ${holder.guestName} is busy: a ${holder.kind}${image} is under way; wait for it, or see \`stasis ops ${holder.id}\``,
    {
      guest: holder.guestName,
      details: { operation: holder.id, kind: holder.kind },
    },
  );
}

interface Shared extends EngineOptions {
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

class RunningOperation implements LiveOperation, OperationHandle {
  record: OperationRecord;
  bytesDone = 0;
  bytesTotal = 0;
  readonly recovering: boolean;
  /** under whose hold on the guest it is settled, if not its own */
  readonly heldBy: RunningOperation | undefined;
  readonly #shared: Shared;
  readonly #procedure: AnyProcedure;
  readonly #abort = new AbortController();
  readonly #over = Promise.withResolvers<void>();
  #steps: Step[];
  #warnings: string[];

  constructor(
    shared: Shared,
    procedure: AnyProcedure,
    record: OperationRecord,
    recovering: boolean,
    heldBy?: RunningOperation,
  ) {
    this.heldBy = heldBy;
    this.#shared = shared;
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
  get givesWay(): boolean {
    return this.#procedure.givesWay === true && this.cancellable;
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
      await insertOperation(this.#shared.catalog, this.record);
    } catch (error) {
      throw this.#explain(error);
    }
    try {
      await this.failpoint('record:after');
      this.#shared.started(this);
      this.#shared.log.info({}, `${this.#what} begins`);
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
    this.#shared.log.info({ committed }, `recovering ${this.#what}`);
    const before = error === null ? undefined : StasisError.fromJSON(fromStored<ErrorBody>(error));
    try {
      const failure =
        committed === 1 ? await this.#procedure.finish(this.#plan, this) : await this.#takeBack(before);
      await this.#end(stateAfter(failure ?? undefined), failure ?? undefined, true);
      return undefined;
    } catch (caught) {
      const failure = this.#explain(caught);
      this.#shared.log.error({ err: caught }, 'recovery failed');
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
    await updateOperation(this.#shared.catalog, this.id, { steps: JSON.stringify(this.#steps) });
    this.#shared.changed(this);
    await this.failpoint(`${name}:before`);
    const result = await body();
    await this.failpoint(`${name}:after`);
    return result;
  }

  failpoint(name: string): Promise<void> {
    return this.#shared.failpoint(`${this.#procedure.name}/${name}`, this.guest);
  }

  async commit(body: (transaction: Transaction<Tables>) => Promise<void>): Promise<void> {
    this.signal.throwIfAborted();
    await this.step('commit', async () => {
      await this.#shared.catalog.transaction().execute(async (transaction) => {
        await body(transaction);
        await markCommitted(transaction, this.id);
      });
      this.record = { ...this.record, committed: 1 };
    });
    this.#shared.changed(this);
  }

  progress(bytesDone: number, bytesTotal: number): void {
    this.bytesDone = bytesDone;
    this.bytesTotal = bytesTotal;
    this.#shared.changed(this);
  }

  async warn(message: string): Promise<void> {
    this.#warnings = [...this.#warnings, message];
    this.record = { ...this.record, warnings: JSON.stringify(this.#warnings) };
    await updateOperation(this.#shared.catalog, this.id, { warnings: this.record.warnings });
  }

  async outcome(outcome: Outcome): Promise<void> {
    const others = this.outcomes.filter(({ name }) => name !== outcome.name);
    this.record = { ...this.record, outcomes: JSON.stringify([...others, outcome]) };
    await updateOperation(this.#shared.catalog, this.id, { outcomes: this.record.outcomes });
  }

  whileHolding(guests: readonly string[], body: () => Promise<void>): Promise<boolean> {
    return this.#shared.whileHolding(this, guests, body);
  }

  publish(event: EventInput): Promise<void> {
    return this.#shared.events.publish({ guest: this.guestName, operation: this.id, ...event });
  }

  async child<Args, Plan>(
    kind: OperationKind,
    procedure: Procedure<Args, Plan>,
    args: Args,
    image: string | null,
  ): Promise<void> {
    const child = this.#shared.createChild(
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
      this.#shared.log.error({ err: error }, 'undoing failed');
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
      this.#shared.log.error({ err: error }, 'a warning could not be recorded');
    }
  }

  /** What went wrong, told of the guest and image; a cancellation is told as that, whatever broke on its way out. */
  #explain(error: unknown): StasisError {
    if (this.signal.aborted && this.record.committed === 0) return StasisError.from(this.signal.reason);
    const explained = StasisError.from(error);
    if (explained.code === 'internal') this.#shared.log.error({ err: error }, 'internal error');
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
      await this.#shared.audit.appendWith(
        async (transaction) => {
          await updateOperation(transaction, this.id, { state, error, finishedAt });
          if (settled) await markSettled(transaction, this.id);
        },
        this.#outcomeEntry(state, failure),
      );
      isOver = settled;
      this.#logEnd(failure);
      await this.#publishState();
      await trimOperations(this.#shared.catalog);
    } catch (caught) {
      // The catalog can't be written, say on a full disk: who waits is told all the same, and recovery comes again.
      this.#shared.log.error({ err: caught }, 'the end of an operation could not be recorded');
    } finally {
      this.#shared.ended(this, isOver);
      this.#shared.changed(this);
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
    const { log } = this.#shared;
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
