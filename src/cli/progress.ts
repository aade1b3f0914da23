/** A bar on the terminal while an operation runs: phase, bytes, rate and remaining time. Nothing elsewhere. */
import { stripVTControlCharacters } from 'node:util';
import type { Operation } from '../api/schemas.ts';
import { paint } from './style.ts';
import { fitText, printable, textWidth } from './text-width.ts';
import { formatBytes, formatDuration } from './units.ts';

const ERASE_LINE = '\r\u001b[K';
const GAP = '  ';
const WIDEST_BAR_COLUMNS = 24;
const NARROWEST_BAR_COLUMNS = 8;
/** of the longest numbers, with their gaps */
const NUMBERS_COLUMNS = '  100 %  1023 MiB of 1023 MiB  1023 MiB/s  59 min 59 s left'.length;
/** stays free at the end of the line, for the `^C` that the terminal may put there */
const FREE_COLUMNS = 3;
/** The rate is that of the last seconds: a guest's memory isn't equally quick to save everywhere. */
const RATE_WINDOW_MS = 3000;
/** An eye reads no faster, and a terminal over ssh is slow. */
const REDRAW_MS = 50;

interface Sample {
  readonly atMs: number;
  readonly bytes: number;
}

/** What a bar shows: an operation of the daemon's, or work of the command's own. */
export type Shown = Pick<
  Operation,
  'kind' | 'guest' | 'image' | 'phase' | 'state' | 'bytesDone' | 'bytesTotal'
>;

export class Progress implements Disposable {
  readonly #stream: NodeJS.WriteStream;
  readonly #nowMs: () => number;
  #phase = '';
  #samples: Sample[] = [];
  #drawnAtMs = Number.NEGATIVE_INFINITY;
  #drawn = false;

  constructor(stream: NodeJS.WriteStream = process.stderr, nowMs: () => number = () => performance.now()) {
    this.#stream = stream;
    this.#nowMs = nowMs;
  }

  update(operation: Shown): void {
    if (!this.#stream.isTTY || operation.state !== 'running') return;
    const atMs = this.#nowMs();
    const newPhase = operation.phase !== this.#phase;
    if (newPhase) this.#samples = [];
    this.#phase = operation.phase;
    this.#samples = this.#samples.filter((sample) => atMs - sample.atMs <= RATE_WINDOW_MS);
    this.#samples.push({ atMs, bytes: operation.bytesDone });
    if (!newPhase && atMs - this.#drawnAtMs < REDRAW_MS) return;
    this.#drawnAtMs = atMs;
    this.#drawn = true;
    this.#stream.write(
      ERASE_LINE + renderProgress(operation, this.#rate(), (this.#stream.columns || 80) - FREE_COLUMNS),
    );
  }

  /** Takes the bar away, so that something else can be printed; the next update draws it again. */
  clear(): void {
    if (this.#drawn) this.#stream.write(ERASE_LINE);
    this.#drawn = false;
    this.#drawnAtMs = Number.NEGATIVE_INFINITY;
  }

  [Symbol.dispose](): void {
    this.clear();
  }

  /** bytes per second; 0 until it is known */
  #rate(): number {
    const [first, last] = [this.#samples[0], this.#samples.at(-1)];
    if (first === undefined || last === undefined || last.atMs - first.atMs < 200) return 0;
    return Math.max(0, ((last.bytes - first.bytes) / (last.atMs - first.atMs)) * 1000);
  }
}

/** The bar as one line of at most `width` columns (colours not counted). What doesn't fit is left out, the bar first. */
export function renderProgress(operation: Shown, bytesPerSecond: number, width: number): string {
  const subject = [operation.guest, operation.image].filter((name) => name !== null).join(' / ');
  const head = printable(`${operation.kind} ${subject}  ${operation.phase}`);
  const { bytesDone, bytesTotal } = operation;
  if (bytesTotal <= 0 || textWidth(head) > width) return fitText(`${head} …`, width);
  const fraction = Math.min(1, bytesDone / bytesTotal);
  let line = `${head}${renderBar(fraction, width - textWidth(head) - NUMBERS_COLUMNS)}`;
  let used = textWidth(stripVTControlCharacters(line));
  for (const number of numbersOf(operation, fraction, bytesPerSecond)) {
    used += GAP.length + number.length;
    if (used > width) break;
    line += GAP + number;
  }
  return line;
}

/** In the order of their worth. */
function numbersOf({ bytesDone, bytesTotal }: Shown, fraction: number, bytesPerSecond: number): string[] {
  const numbers = [
    `${String(Math.floor(fraction * 100)).padStart(3)} %`,
    `${formatBytes(bytesDone)} of ${formatBytes(bytesTotal)}`,
  ];
  if (bytesPerSecond <= 0) return numbers;
  const remainingMs = ((bytesTotal - bytesDone) / bytesPerSecond) * 1000;
  numbers.push(`${formatBytes(bytesPerSecond)}/s`);
  if (remainingMs >= 1000) numbers.push(`${formatDuration(remainingMs)} left`);
  return numbers;
}

/** A bar in the columns that the numbers leave, however long they are just now: a bar that jumps can't be read. */
function renderBar(fraction: number, available: number): string {
  const columns = Math.min(WIDEST_BAR_COLUMNS, available - GAP.length);
  if (columns < NARROWEST_BAR_COLUMNS) return '';
  const filled = Math.round(fraction * columns);
  const [done, rest] = ['━'.repeat(filled), '─'.repeat(columns - filled)];
  return `${GAP}${paint('cyan', done, process.stderr)}${paint('dim', rest, process.stderr)}`;
}
