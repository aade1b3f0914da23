import { StasisError } from '../errors.ts';

/**
 * JSON from the daemon as the type that the contract promises: the one place that trusts it. Both ends are typed
 * from the same schemas and the daemon checks what it sends, so a client needn't carry a schema library. That it is
 * a document at all is looked at: something else may answer where a daemon is looked for.
 *
 * @param from who sent it, for the message
 * @throws StasisError `internal` when it is none
 */
// oxlint-disable-next-line typescript/no-unnecessary-type-parameters -- the caller names what the contract promises
export function parseWire<T extends object>(text: string, from = 'the daemon'): T {
  try {
    const document: T | null = JSON.parse(text);
    if (typeof document === 'object' && document !== null) return document;
  } catch {
    // said below
  }
  throw new StasisError('internal', `${from} did not answer in JSON`);
}
