/** Values of options, as users write them. */
import { InvalidArgumentError } from 'commander';

/** @throws InvalidArgumentError which commander tells as wrong usage */
export function positiveNumber(text: string): number {
  if (!/^[1-9]\d{0,5}$/.test(text)) throw new InvalidArgumentError('It is no number from 1 to 999999.');
  return Number(text);
}
