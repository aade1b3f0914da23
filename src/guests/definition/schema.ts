/** How the parts of a definition's schema are written: strictly. */
import Type from 'typebox';
import { StasisError } from '../../errors.ts';

/** An unknown key is an error. */
export const strict = { additionalProperties: false } as const;

export const OneOf = <const T extends readonly string[]>(...values: T) =>
  Type.Unsafe<T[number]>({ type: 'string', enum: [...values] });

export function invalid(message: string, details?: Record<string, unknown>): StasisError {
  return new StasisError('invalid-definition', `the definition is not valid: ${message}`, { details });
}
