/** `name: value` lines with the values under each other. */
import { padText, printable, textWidth } from './text-width.ts';
import { paint, type Style } from './style.ts';

export type Field = readonly [name: string, value: string | undefined | null, style?: Style | undefined];

/** One line per field that has a value. A value is never cut: it is what was asked for, and may be a path to copy. */
export function renderFields(fields: readonly Field[]): string[] {
  const present = fields.filter(([, value]) => value !== undefined && value !== null && value !== '');
  const nameWidth = Math.max(0, ...present.map(([name]) => textWidth(name)));
  return present.map(([name, value, style]) => {
    const text = printable(value ?? '');
    return `${paint('dim', padText(name, nameWidth, 'left'))}  ${style === undefined ? text : paint(style, text)}`;
  });
}
