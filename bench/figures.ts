/** What was measured: plain data, which tables and charts are made of, now or from a file later. */

export interface Setting {
  readonly memoryMiB: number;
  readonly dirtyMbps?: number | undefined;
}

/** A guest under load; 0: it only writes to its disks. */
export interface LoadedSetting extends Setting {
  readonly dirtyMbps: number;
}

export type Unit = 'ms' | 'MiB' | 'MB/s' | '×' | '%';

/** The same thing measured again and again. */
export interface Series {
  readonly figure: string;
  readonly setting: Setting;
  /** who, or which way of doing it */
  readonly by: string;
  readonly unit: Unit;
  readonly values: number[];
  /** what has to be said besides, such as that it was given up */
  readonly notes: string[];
}

export interface Machine {
  readonly cpu: string;
  readonly cores: number;
  readonly memoryGiB: number;
  readonly kernel: string;
  readonly fileSystem: string;
  readonly qemu: string;
  readonly accelerator: string;
  readonly libvirt: string | null;
}

export interface Results {
  readonly measuredAt: string;
  readonly command: string;
  readonly machine: Machine;
  readonly skipped: readonly string[];
  readonly series: readonly Series[];
}

export interface Spread {
  readonly median: number;
  readonly min: number;
  readonly max: number;
}

export class Figures {
  readonly series: Series[] = [];

  add(figure: string, setting: Setting, by: string, unit: Unit, value: number): void {
    this.#of(figure, setting, by, unit).values.push(value);
  }

  note(figure: string, setting: Setting, by: string, unit: Unit, note: string): void {
    const { notes } = this.#of(figure, setting, by, unit);
    if (!notes.includes(note)) notes.push(note);
  }

  #of(figure: string, setting: Setting, by: string, unit: Unit): Series {
    const known = findSeries(this.series, figure, setting, by);
    if (known !== undefined) return known;
    const series = { figure, setting, by, unit, values: [], notes: [] };
    this.series.push(series);
    return series;
  }
}

export function findSeries(
  all: readonly Series[],
  figure: string,
  setting: Setting,
  by: string,
): Series | undefined {
  return all.find(
    (series) => series.figure === figure && series.by === by && isSame(series.setting, setting),
  );
}

export function isSame(a: Setting, b: Setting): boolean {
  return a.memoryMiB === b.memoryMiB && a.dirtyMbps === b.dirtyMbps;
}

/** @returns undefined when there is no value */
export function spread(values: readonly number[]): Spread | undefined {
  const sorted = values.toSorted((a, b) => a - b);
  const half = (sorted.length - 1) / 2;
  const [min, max] = [sorted[0], sorted.at(-1)];
  const [low, high] = [sorted[Math.floor(half)], sorted[Math.ceil(half)]];
  if (min === undefined || max === undefined || low === undefined || high === undefined) return undefined;
  return { median: (low + high) / 2, min, max };
}

export function settingText({ memoryMiB, dirtyMbps }: Setting): string {
  const memory = memoryMiB % 1024 === 0 ? `${memoryMiB / 1024} GiB` : `${memoryMiB} MiB`;
  if (dirtyMbps === undefined) return memory;
  return `${memory}, ${dirtyMbps === 0 ? 'idle' : `${dirtyMbps} MB/s`}`;
}

/** `19 (10–118)` with as many digits as matter. */
export function spreadText({ median, min, max }: Spread): string {
  return `${numberText(median)} (${numberText(min)}–${numberText(max)})`;
}

export function numberText(value: number): string {
  return value.toFixed(Math.abs(value) < 10 ? 1 : 0);
}
