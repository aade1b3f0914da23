/**
 * Tables that fit the terminal. When the columns together are too wide, the widest flexible one gives way first, then
 * the next; before one becomes too narrow to read, columns that can be spared are left out. A pipe has no width, and
 * gets everything.
 */
import { fitText, padText, printable, textWidth } from './text-width.ts';
import { paint, type Style } from './style.ts';

export interface Column {
  readonly title: string;
  readonly align?: 'left' | 'right';
  /** may be cut to fit: free text, paths, names; not numbers */
  readonly flexible?: boolean;
  /** is left out, the last one first, rather than that others become unreadable */
  readonly spare?: boolean;
  /** which end is left out when it is cut; default: the last. The end of a path tells more than its beginning. */
  readonly cut?: 'start' | 'end';
}

export type Cell = string | { readonly text: string; readonly style: Style };

const GAP = '  ';
/** A name that is cut shorter can't be told from others. */
const NARROWEST_FLEXIBLE = 12;

/**
 * The lines of a table with a heading, none of them wider than `width` columns and none with trailing blanks.
 * Each row has one cell per column.
 */
export function renderTable(
  columns: readonly Column[],
  rows: readonly (readonly Cell[])[],
  width: number,
): string[] {
  const heading = columns.map((column): Cell => ({ text: column.title, style: 'bold' }));
  const lines = [heading, ...rows];
  const natural = columns.map((_, index) =>
    Math.max(...lines.map((cells) => textWidth(textOf(cells[index])))),
  );
  const shown = columnsThatFit(columns, natural, width);
  const pick = <T>(values: readonly T[]) => values.filter((_, index) => shown.has(index));
  const shownColumns = pick(columns);
  const widths = fitWidths(shownColumns, pick(natural), width);
  return lines.map((cells) => renderLine(shownColumns, widths, pick(cells), width));
}

/** The indexes of the columns to show: all, or fewer of those that can be spared. */
function columnsThatFit(
  columns: readonly Column[],
  natural: readonly number[],
  available: number,
): Set<number> {
  const shown = new Set(columns.keys());
  const narrowest = (index: number) =>
    columns[index]?.flexible === true
      ? Math.min(natural[index] ?? 0, NARROWEST_FLEXIBLE)
      : (natural[index] ?? 0);
  const needed = () => [...shown].reduce((sum, index) => sum + narrowest(index) + GAP.length, -GAP.length);
  for (const index of [...columns.keys()].toReversed()) {
    if (needed() <= available) break;
    if (columns[index]?.spare === true) shown.delete(index);
  }
  return shown;
}

/** Widths that add up to no more than `available`, if one column each can. */
function fitWidths(columns: readonly Column[], natural: readonly number[], available: number): number[] {
  const widths = [...natural];
  const gaps = GAP.length * Math.max(0, columns.length - 1);
  let excess = widths.reduce((sum, width) => sum + width, gaps) - available;
  const shrink = (mayGive: (index: number) => boolean) => {
    while (excess > 0) {
      const candidates = [...widths.keys()].filter(mayGive);
      if (candidates.length === 0) return;
      const widest = candidates.reduce((a, b) => ((widths[b] ?? 0) > (widths[a] ?? 0) ? b : a));
      widths[widest] = (widths[widest] ?? 0) - 1;
      excess -= 1;
    }
  };
  shrink((index) => columns[index]?.flexible === true && (widths[index] ?? 0) > NARROWEST_FLEXIBLE);
  shrink((index) => (widths[index] ?? 0) > 1); // a very narrow terminal: nobody is spared
  return widths;
}

function renderLine(
  columns: readonly Column[],
  widths: readonly number[],
  cells: readonly Cell[],
  width: number,
): string {
  let line = '';
  let used = 0;
  for (const [index, column] of columns.entries()) {
    const gap = index === 0 ? '' : GAP;
    const last = index === columns.length - 1;
    const cell = cells[index] ?? '';
    const columnWidth = widths[index] ?? 0;
    // Even one column each can be too much for the terminal: the rest of the row is left out.
    const room = Math.min(columnWidth, width - used - gap.length);
    if (room < 0) break;
    const unpadded = fitText(textOf(cell), room, column.cut);
    const padded =
      last && column.align !== 'right' ? unpadded : padText(unpadded, room, column.align ?? 'left');
    line +=
      gap + (typeof cell === 'string' ? padded : padded.replace(unpadded, () => paint(cell.style, unpadded)));
    used += gap.length + room;
  }
  return line.trimEnd();
}

function textOf(cell: Cell | undefined): string {
  if (cell === undefined) return '';
  return printable(typeof cell === 'string' ? cell : cell.text);
}
