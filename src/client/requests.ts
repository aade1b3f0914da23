/** What the methods of the client take and give, beside the documents of the wire. */
import type { Operation, RestoreRequest, SaveRequest, VerifyRequest } from '../api/schemas.ts';

/** Optional things may also be given as `undefined`: a caller needn't build its request conditionally. */
export type Loose<T> = { readonly [Key in keyof T]: T[Key] | undefined };

export type SaveOptions = Loose<SaveRequest>;
export type RestoreOptions = Loose<Omit<RestoreRequest, 'name'>>;
export type VerifyOptions = Loose<VerifyRequest>;

export interface CallOptions {
  /** Aborting ends the waiting, never the operation: `cancelOperation` does that. */
  readonly signal?: AbortSignal | undefined;
}

export interface ChangeOptions extends CallOptions {
  /**
   * 1 to 128 printable characters of ASCII: the same request with the same key within 24 hours begins nothing again and resolves as
   * the first does. Without it each call has a key of its own. Given by a program that may itself be started again.
   */
  readonly idempotencyKey?: string | undefined;
}

export interface Waiting extends ChangeOptions {
  /** called at once, on every change of phase or progress, and at the end */
  readonly onProgress?: ((operation: Operation) => void) | undefined;
  readonly wait?: true;
}

export interface NotWaiting extends ChangeOptions {
  /** resolve as soon as the operation is recorded: from then on it ends even if the host loses power */
  readonly wait: false;
}

/** What a mutation resolves with: its result, or, when the caller doesn't wait for it, the running operation. */
export type Outcome<Options extends Waiting | NotWaiting, Result> = Options extends NotWaiting
  ? Operation
  : Result;
