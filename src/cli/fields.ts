/** `name: value` lines with the values under each other. */
import { fitText, padText, printable, textWidth } from './text-width.ts';
import { paint, type Style } from './style.ts';

export type Field = readonly [name: string, value: string | undefined | null, style?: Style | undefined];

/** One line per field that has a value. */
export function renderFields(fields: readonly Field[], width: number): string[] {
  const present = fields.filter(([, value]) => value !== undefined && value !== null && value !== '');
  const nameWidth = Math.max(0, ...present.map(([name]) => textWidth(name)));
  return present.map(([name, value, style]) => {
    const fitted = fitText(printable(value ?? ''), Math.max(1, width - nameWidth - 2));
    return `${paint('dim', padText(name, nameWidth, 'left'))}  ${style === undefined ? fitted : paint(style, fitted)}`;
  });
}
