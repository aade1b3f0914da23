import { StasisError } from '../errors.ts';

export interface WaitOptions {
  /** Gives up early, with `cancelled` or, when the reason is one, with the signal's own `StasisError`. */
  readonly signal?: AbortSignal | undefined;
  /** Gives up with `timeout` after this many milliseconds; no limit when absent. */
  readonly timeoutMs?: number | undefined;
}

/**
 * Settles as `promise` does, unless the signal or the time limit comes first. The work behind the promise is
 * *not* stopped: whoever waits decides what to do with it, and its late outcome is ignored.
 *
 * @param what the thing waited for, for the message: "timed out after 50 ms: <what>"
 * @throws StasisError `cancelled`, `timeout`, or whatever the promise rejects with
 */
export async function waitFor<T>(what: string, promise: Promise<T>, options: WaitOptions = {}): Promise<T> {
  const { signal, timeoutMs } = options;
  const cut = Promise.withResolvers<never>();
  const onAbort = (): void => cut.reject(abortError(signal, what));
  const timer =
    timeoutMs === undefined
      ? undefined
      : setTimeout(() => {
          // What came while this process itself was held up is heard first.
          setImmediate(() => {
            cut.reject(new StasisError('timeout', `timed out after ${timeoutMs} ms: ${what}`));
          });
        }, timeoutMs);
  signal?.addEventListener('abort', onAbort, { once: true });
  if (signal?.aborted === true) onAbort();
  try {
    return await Promise.race([promise, cut.promise]);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', onAbort);
  }
}

/** Throws the signal's abort as a `StasisError`, if it is aborted. */
export function throwIfAborted(signal: AbortSignal | undefined, what: string): void {
  if (signal?.aborted === true) throw abortError(signal, what);
}

function abortError(signal: AbortSignal | undefined, what: string): StasisError {
  const reason: unknown = signal?.reason;
  if (reason instanceof StasisError) return reason;
  return new StasisError('cancelled', `cancelled: ${what}`, { cause: reason });
}
