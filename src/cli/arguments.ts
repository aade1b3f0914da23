/** Values of options, as users write them. */
import { InvalidArgumentError } from 'commander';

/** @throws InvalidArgumentError which commander tells as wrong usage */
export function positiveNumber(text: string): number {
  if (!/^[1-9]\d{0,5}$/.test(text)) throw new InvalidArgumentError('It is no number from 1 to 999999.');
  return Number(text);
}

const UNIT_SECONDS: Record<string, number> = { '': 1, s: 1, m: 60, min: 60, h: 3600 };

/** `90`, `90s`, `1.5m`, `1h` in seconds. @throws InvalidArgumentError */
export function duration(text: string): number {
  const [, amount = '', unit = ''] = /^(\d+(?:\.\d+)?)(s|m|min|h)?$/.exec(text) ?? [];
  const seconds = Number(amount) * (UNIT_SECONDS[unit] ?? 0);
  if (!(seconds > 0 && seconds <= 86_400))
    throw new InvalidArgumentError('It is no duration such as 90s, 2m or 1h, up to a day.');
  return seconds;
}
