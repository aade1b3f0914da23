/** Values of options, as users write them. */
import { InvalidArgumentError } from 'commander';

/** @throws InvalidArgumentError which commander tells as wrong usage */
export function positiveNumber(text: string): number {
  if (!/^[1-9]\d{0,5}$/.test(text)) throw new InvalidArgumentError('It is no number from 1 to 999999.');
  return Number(text);
}

/** @throws InvalidArgumentError */
export function wholeNumber(text: string): number {
  if (!/^\d{1,9}$/.test(text)) throw new InvalidArgumentError('It is no whole number.');
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

const LONG_UNIT_SECONDS: Record<string, number> = {
  h: 3600,
  d: 86_400,
  w: 7 * 86_400,
  y: 365 * 86_400,
};

/** `36h`, `30d`, `4w`, `1y` in seconds; `none`: 0. @throws InvalidArgumentError */
export function longDuration(text: string): number {
  if (text === 'none') return 0;
  const [, amount = '', unit = ''] = /^(\d{1,5})([hdwy])$/.exec(text) ?? [];
  const seconds = Number(amount) * (LONG_UNIT_SECONDS[unit] ?? 0);
  if (seconds > 0) return seconds;
  throw new InvalidArgumentError('It is no duration such as 36h, 30d, 4w or 1y, nor none.');
}

const SIZE_UNITS = ['', 'K', 'M', 'G', 'T'];

/** `200GiB`, `200G` in bytes, or `none`: commander takes a null for no value. @throws InvalidArgumentError */
export function sizeOrNone(text: string): number | 'none' {
  if (text === 'none') return text;
  const [, amount = '', unit = ''] = /^(\d+(?:\.\d+)?)\s*(?:([KMGT])i?)?B?$/i.exec(text) ?? [];
  const bytes = Math.floor(Number(amount) * 1024 ** SIZE_UNITS.indexOf(unit.toUpperCase()));
  if (amount !== '' && bytes > 0 && Number.isSafeInteger(bytes)) return bytes;
  throw new InvalidArgumentError('It is no size such as 200GiB, nor none.');
}
