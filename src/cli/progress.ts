/** A bar on the terminal while an operation runs: phase, bytes, rate and remaining time. Nothing elsewhere. */
import type { Operation } from '../api/schemas.ts';
import { paint } from './style.ts';
import { fitText, printable } from './text-width.ts';
import { formatBytes, formatDuration } from './units.ts';

const ERASE_LINE = '\r\u001b[K';
const BAR_COLUMNS = 24;
/** The rate is that of the last seconds: a guest's memory isn't equally quick to save everywhere. */
const RATE_WINDOW_MS = 3000;
/** An eye reads no faster, and a terminal over ssh is slow. */
const REDRAW_MS = 50;

interface Sample {
  readonly atMs: number;
  readonly bytes: number;
}

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

  update(operation: Operation): void {
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
    // One column stays free: some terminals wrap as soon as the last one is written.
    this.#stream.write(
      ERASE_LINE + renderProgress(operation, this.#rate(), (this.#stream.columns || 80) - 1),
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

/** The bar as one line of at most `width` columns (colours not counted). */
export function renderProgress(operation: Operation, bytesPerSecond: number, width: number): string {
  const subject = printable([operation.guest, operation.image].filter((name) => name !== null).join(' / '));
  const head = `${operation.kind} ${subject}  `;
  const { bytesDone, bytesTotal } = operation;
  if (bytesTotal <= 0) return fitText(`${head}${operation.phase} …`, width);
  const fraction = Math.min(1, bytesDone / bytesTotal);
  const remaining = bytesPerSecond > 0 ? ((bytesTotal - bytesDone) / bytesPerSecond) * 1000 : undefined;
  const numbers = [
    `${String(Math.floor(fraction * 100)).padStart(3)} %`,
    `${formatBytes(bytesDone)} of ${formatBytes(bytesTotal)}`,
    ...(bytesPerSecond > 0 ? [`${formatBytes(bytesPerSecond)}/s`] : []),
    ...(remaining !== undefined && remaining >= 1000 ? [`${formatDuration(remaining)} left`] : []),
  ].join('  ');
  const phase = `${printable(operation.phase)}  `;
  const filled = Math.round(fraction * BAR_COLUMNS);
  const plain = `${head}${phase}${' '.repeat(BAR_COLUMNS)}  ${numbers}`;
  if (plain.length > width) return fitText(`${head}${phase}${numbers.trimStart()}`, width);
  const bar =
    paint('cyan', '━'.repeat(filled), process.stderr) +
    paint('dim', '─'.repeat(BAR_COLUMNS - filled), process.stderr);
  return `${head}${phase}${bar}  ${numbers}`;
}
