/**
 * How a durable piece of work is written: as a procedure with one point of no return.
 *
 *   plan    reads only, and throws while nothing has been touched. Names every file, layer and process that the
 *           work will make. The plan is on disk before the first side effect: it is the intent.
 *   run     does everything that can still be taken back, step by step, up to `operation.commit`: the one
 *           transaction that makes the work count.
 *   undo    takes back whatever `run` did or half did. Only the plan and the world tell it what that was, so it is
 *           the same after an error, a cancellation, a crash and a second crash during itself.
 *   finish  does what follows from the commit, and may be begun again any number of times.
 *
 * After a crash an operation that was not committed is undone, one that was is finished. There is no third case. What
 * can be neither, say for want of space, is tried again by itself, and before anything else is done to the guest.
 */
import type { Transaction } from 'kysely';
import type { OperationKind, Outcome } from '../api/schemas.ts';
import type { Tables } from '../catalog/schema.ts';
import type { StasisError } from '../errors.ts';
import type { EventInput } from './event-log.ts';

export interface Procedure<Args, Plan> {
  readonly name: string;
  /** may a user cancel it while it is not committed? */
  readonly cancellable: boolean;
  /**
   * It can wait: its signal is aborted when something is to be done to the guest that can wait less. `uncommitted`: as long as it can be
   * cancelled. `always`: also while it finishes, which then ends early and well; if it can't be cancelled nobody asked for it, and it goes behind
   * all others.
   */
  readonly givesWay?: 'uncommitted' | 'always';
  /** What it does after its commit may take so long that after a crash the daemon serves first. */
  readonly finishesLong?: boolean;
  plan(args: Args, subject: Subject): Promise<Plan>;
  run(plan: Plan, operation: OperationHandle): Promise<void>;
  undo(plan: Plan, operation: OperationHandle): Promise<void>;
  /** @returns how it turned out, when all that is ours is settled and the guest still isn't what was asked for */
  finish(plan: Plan, operation: OperationHandle): Promise<StasisError | void>;
}

/** Whom an operation is about. */
export interface Subject {
  /** null when the guest doesn't exist yet */
  readonly guest: string | null;
  readonly guestName: string;
  readonly image: string | null;
  /** a guest that this operation reads of: others may too, but nothing may be done to it */
  readonly source?: string | undefined;
}

/** What a procedure is given to work with. */
export interface OperationHandle extends Subject {
  readonly id: string;
  /** aborted when the user cancels */
  readonly signal: AbortSignal;
  /** what was told by `outcome` so far */
  readonly outcomes: readonly Outcome[];
  /** true after a crash: what ran before, and how far, only the world can tell */
  readonly recovering: boolean;
  /** Was this step's beginning journaled, by this process or one before it? */
  reached(step: string): boolean;
  /** Journals that the step begins, then does it. */
  step<T>(name: string, body: () => Promise<T>): Promise<T>;
  /** A failpoint where nothing may be journaled, inside a pause. */
  failpoint(name: string): Promise<void>;
  /** The point of no return: what `body` writes and the fact that it did are one transaction. */
  commit(body: (transaction: Transaction<Tables>) => Promise<void>): Promise<void>;
  progress(bytesDone: number, bytesTotal: number): void;
  /** Something the user should know although the work succeeded. */
  warn(message: string): Promise<void>;
  /** What was done for the guest besides the work itself, and how that went; the same name again replaces it. */
  outcome(outcome: Outcome): Promise<void>;
  /**
   * Does something that needs other guests to be left alone meanwhile.
   * @returns false, and nothing was done, when an operation holds one of them
   */
  whileHolding(guests: readonly string[], body: () => Promise<void>): Promise<boolean>;
  publish(event: EventInput): Promise<void>;
  /** Runs another procedure to its end as an operation of its own, under this one's hold on the guest. */
  child<Args, Plan>(
    kind: OperationKind,
    procedure: Procedure<Args, Plan>,
    args: Args,
    image: string | null,
  ): Promise<void>;
}
