/** What the methods of the client take and give, beside the documents of the wire. */
import type { Operation, RestoreRequest, SaveRequest, VerifyRequest } from '../api/schemas.ts';

/** What is left out may also be given as `undefined`: a caller needn't build its request conditionally. */
export type Loose<T> = { readonly [Key in keyof T]: T[Key] | undefined };

/** How an image is taken: its name, `live`, `quiesce`, how long the guest may stand still. */
export type SaveOptions = Loose<SaveRequest>;
/** How a guest is put back: `delete` the image, leave it `paused`, save what it is now first. */
export type RestoreOptions = Loose<Omit<RestoreRequest, 'name'>>;
/** How thoroughly an image is looked at: up to a test restore in isolation. */
export type VerifyOptions = Loose<VerifyRequest>;

/** Of every call. */
export interface CallOptions {
  /** Aborting ends the waiting, never the operation: `cancelOperation` does that. */
  readonly signal?: AbortSignal | undefined;
}

/** Of every call that changes something. */
export interface ChangeOptions extends CallOptions {
  /**
   * 1 to 128 printable characters of ASCII: the same request with the same key within 24 hours begins nothing again and resolves as
   * the first does. Without it each call has a key of its own. Given by a program that may itself be started again.
   */
  readonly idempotencyKey?: string | undefined;
}

/** Of a change that is waited for: the call resolves with its result. */
export interface Waiting extends ChangeOptions {
  /** called at once, on every change of phase or progress, and at the end */
  readonly onProgress?: ((operation: Operation) => void) | undefined;
  readonly wait?: true;
}

/** Of a change that is not waited for: the call resolves with the operation under way. */
export interface NotWaiting extends ChangeOptions {
  /** resolve as soon as the operation is recorded: from then on it ends even if the host loses power */
  readonly wait: false;
}

/** What a mutation resolves with: its result, or, when the caller doesn't wait for it, the running operation. */
export type Outcome<Options extends Waiting | NotWaiting, Result> = Options extends NotWaiting
  ? Operation
  : Result;
