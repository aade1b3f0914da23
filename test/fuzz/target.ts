/** What a fuzzer makes inputs for. */
import { StasisError } from '../../src/errors.ts';

export interface Target {
  readonly name: string;
  /** for a person: what is read, and where it comes from */
  readonly reads: string;
  readonly syntax: 'binary' | 'text' | 'json';
  /** words of the format, to make inputs of */
  readonly words: readonly string[];
  /** what else than a `StasisError` its caller turns into one */
  readonly handled: readonly (new (...args: never[]) => Error)[];
  /** @throws whatever the reader throws; AssertionError when it read wrong */
  readonly read: (input: Buffer) => Promise<void> | void;
}

export const text = (input: Buffer) => input.toString('utf8');

/** Whether an error is one that a reader may end with. */
export function isTyped(error: unknown, { handled }: Pick<Target, 'handled'>): boolean {
  if (error instanceof StasisError) return error.code !== 'internal' || error.cause === undefined;
  return handled.some((kind) => error instanceof kind);
}

/** Cut by what is in it, so that an input is always cut the same. */
export function pieces(input: Buffer): Buffer[] {
  const size = 1 + ((input[0] ?? 0) % 61);
  return Array.from({ length: Math.ceil(input.length / size) }, (_, index) =>
    input.subarray(index * size, (index + 1) * size),
  );
}
