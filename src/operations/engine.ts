/**
 * Runs procedures as durable operations: one at a time per guest, journaled, with progress, cancellable, and
 * finished or undone after a crash.
 */
import { EventEmitter } from 'node:events';
import {
  findOperation,
  operationNotFound,
  unsettledOperations,
  type OperationRecord,
} from '../catalog/operations.ts';
import { StasisError } from '../errors.ts';
import { newId } from '../ids.ts';
import { Failpoints } from './failpoints.ts';
import {
  RunningOperation,
  type AnyProcedure,
  type LiveOperation,
  type Submission,
  type Surroundings,
} from './operation.ts';
import type { Procedure, Subject } from './procedure.ts';

/** So long after it what could not be settled is tried again, and twice as long each time after that. */
const RETRY_MS = 5_000;
const MOST_RETRY_MS = 300_000;

/** Among the listeners' ids: those who want to hear of every operation. */
const ALL = '*';

export interface EngineOptions extends Pick<Surroundings, 'catalog' | 'events' | 'audit' | 'log'> {
  readonly failpoints?: Failpoints;
  /** for failpoints: ends a guest's QEMU process */
  readonly killGuest?: (guest: string) => Promise<void>;
  /** how long after it what could not be settled is first tried again, in milliseconds */
  readonly retryMs?: number;
}

export class OperationEngine implements Disposable {
  readonly #options: EngineOptions;
  readonly #failpoints: Failpoints;
  readonly #procedures = new Map<string, AnyProcedure>();
  readonly #running = new Map<string, RunningOperation>();
  /** which operation holds a guest, by UUID and by name: what made it knows only the latter */
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
    for (const name of [guest ?? guestName, source]) await this.#clearTheWay(name, procedure);
    const holder =
      this.#occupantOf(submission.subject) ?? (source === undefined ? undefined : this.#holders.get(source));
    if (holder !== undefined) throw busy(holder.record);
    const operation = this.#create(procedure, submission, null);
    this.#hold(operation);
    if (source !== undefined) this.#readersOf(source).add(operation);
    try {
      if (guest !== null) await this.#settle({ guest, guestName }, operation);
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

  /** What can wait is undone, or ends early, first. Once it is past that, it is as busy as anything. */
  async #clearTheWay(
    guest: string | undefined,
    other: Pick<AnyProcedure, 'givesWay' | 'cancellable'>,
  ): Promise<void> {
    const holder = guest === undefined ? undefined : this.#holders.get(guest);
    if (holder?.givesWayTo(other) === true) await holder.giveWay();
  }

  #hold(operation: RunningOperation): void {
    for (const key of keysOf(operation)) this.#holders.set(key, operation);
  }

  #occupantOf(subject: Pick<Subject, 'guest' | 'guestName'>): RunningOperation | undefined {
    return keysOf(subject)
      .map((key) => this.#occupant(key))
      .find((occupant) => occupant !== undefined);
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

  /** The operation under way on a guest, if any. @param guest its UUID; of one that is being made its name */
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

  /**
   * Finishes or undoes what was under way when the last daemon ended. Called once, before any new work.
   * @returns goes on with what takes long, and holds its guests until then: to be called when the daemon serves
   */
  async recover(): Promise<() => Promise<void>> {
    const long: RunningOperation[] = [];
    for (const record of await unsettledOperations(this.#options.catalog)) {
      const operation = this.#recovering(record);
      this.#hold(operation);
      // One guest that can't be put right must not keep the daemon from serving the others.
      if (operation.isLong) long.push(operation);
      else await operation.recover();
    }
    return async () => {
      for (const operation of long) await operation.recover();
    };
  }

  /**
   * What could be neither finished nor undone before must be, before anything new is done to the guest.
   * @param heldBy what is to be done, and holds the guest meanwhile
   * @throws StasisError why it still can't
   */
  async #settle(
    about: { readonly guest: string; readonly guestName: string },
    heldBy: RunningOperation,
  ): Promise<void> {
    for (const record of await unsettledOperations(this.#options.catalog, about)) {
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
        if (this.#running.has(record.id)) continue;
        if (this.#occupantOf(record) !== undefined) this.#tryAgainLater();
        else await this.#settleUnlessSettled(record.id);
      }
      if (this.#retry === undefined) this.#retryMs = this.#options.retryMs ?? RETRY_MS;
    } catch (error) {
      this.#options.log.error({ err: error }, 'what is not settled could not be looked at');
      this.#tryAgainLater();
    }
  }

  /** It may have come to its end while it was looked for. */
  async #settleUnlessSettled(id: string): Promise<void> {
    const record = await findOperation(this.#options.catalog, id);
    if (record?.settled !== 0 || this.#occupantOf(record) !== undefined) return;
    const operation = this.#recovering(record);
    this.#hold(operation);
    await operation.recover();
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#retry);
  }

  #recovering(record: OperationRecord, heldBy?: RunningOperation): RunningOperation {
    const procedure = this.#procedures.get(record.procedure);
    if (procedure === undefined)
      throw new Error(`operation ${record.id} is of an unknown procedure ${record.procedure}`);
    const operation = new RunningOperation(this.#surroundings(), procedure, record, true, heldBy);
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
    return new RunningOperation(this.#surroundings(), procedure, record, false);
  }

  /** The guest is free as soon as anybody can know that the operation has ended. */
  #release(operation: RunningOperation): void {
    operation.letGo();
    this.#running.delete(operation.id);
    for (const key of keysOf(operation)) if (this.#holders.get(key) === operation) this.#holders.delete(key);
    for (const [guest, readers] of this.#readers) {
      readers.delete(operation);
      if (readers.size === 0) this.#readers.delete(guest);
    }
  }

  #surroundings(): Surroundings {
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

function keysOf({ guest, guestName }: Pick<Subject, 'guest' | 'guestName'>): readonly string[] {
  return guest === null ? [guestName] : [guest, guestName];
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
