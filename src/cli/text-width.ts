/** How many columns of a terminal a text takes, and texts that take no more than they are given. */

const PRINTABLE_ASCII = /^[\x20-\x7e]*$/;
// oxlint-disable-next-line no-control-regex -- control characters are what it is for
const CONTROL = /[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g;
const INVISIBLE = /^[\p{Mark}\p{Format}]*$/u;
const WIDE =
  /\p{Emoji_Presentation}|\uFE0F|[\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6]|[\u{1f300}-\u{1faff}\u{20000}-\u{3fffd}]/u;

/**
 * A text that can't steer the terminal: control characters, line breaks and changes of direction become visible
 * marks. What comes from a definition or a guest is printed only through here.
 */
export function printable(text: string): string {
  return PRINTABLE_ASCII.test(text) ? text : text.replace(CONTROL, '\u{fffd}');
}

/** Columns that a printable text takes on a terminal. */
export function textWidth(text: string): number {
  if (PRINTABLE_ASCII.test(text)) return text.length;
  return graphemes(text).reduce((width, grapheme) => width + graphemeWidth(grapheme), 0);
}

/** The text in at most `width` columns; what is cut off, at the end or the start, shows as `…`. */
export function fitText(text: string, width: number, cut: 'start' | 'end' = 'end'): string {
  if (textWidth(text) <= width) return text;
  if (width < 1) return '';
  const parts = cut === 'end' ? graphemes(text) : graphemes(text).toReversed();
  const kept: string[] = [];
  let remaining = width - 1;
  for (const grapheme of parts) {
    remaining -= graphemeWidth(grapheme);
    if (remaining < 0) break;
    kept.push(grapheme);
  }
  return cut === 'end' ? `${kept.join('')}…` : `…${kept.toReversed().join('')}`;
}

/** The text in exactly `width` columns. */
export function padText(text: string, width: number, align: 'left' | 'right'): string {
  const fitted = fitText(text, width);
  const space = ' '.repeat(Math.max(0, width - textWidth(fitted)));
  return align === 'right' ? space + fitted : fitted + space;
}

function graphemes(text: string): string[] {
  return Array.from(new Intl.Segmenter().segment(text), ({ segment }) => segment);
}

function graphemeWidth(grapheme: string): number {
  if (WIDE.test(grapheme)) return 2;
  return INVISIBLE.test(grapheme) ? 0 : 1;
}
