/** What must be reached: each target is held against what was measured in the same run. */
import { findSeries, spread, type Results, type Series, type Setting } from './figures.ts';

export interface Verdict {
  readonly figure: string;
  readonly setting: Setting;
  readonly by: string;
  readonly text: string;
  readonly limit: number;
  readonly reached: number;
  readonly met: boolean;
}

interface Target {
  readonly figure: string;
  readonly by: string;
  readonly text: string;
  readonly applies?: (setting: Setting) => boolean;
  /** median unless told otherwise */
  readonly of?: (series: Series) => number | undefined;
  /** undefined when there is nothing to hold it against */
  readonly limit: (results: Results, setting: Setting) => number | undefined;
  /** the other way round: a limit from below */
  readonly atLeast?: true;
}

const STASIS = 'Stasis';
const SPAWN = 'start of QEMU to guest running';
const at =
  (...rates: number[]) =>
  (setting: Setting) =>
    rates.includes(setting.dirtyMbps ?? -1);
const median = (series: Series | undefined) => spread(series?.values ?? [])?.median;
const max = (series: Series) => spread(series.values)?.max;

function timesPeer(figure: string, factor: number, peer: string, plus = 0) {
  return ({ series }: Results, setting: Setting) => {
    const value = median(findSeries(series, figure, setting, peer));
    return value === undefined ? undefined : factor * value + plus;
  };
}

const calm = at(0, 50);
const pause = { figure: 'pause', by: STASIS } as const;

const TARGETS: readonly Target[] = [
  { ...pause, text: '≤ 20 ms', applies: calm, limit: () => 20 },
  { ...pause, text: '≤ 1.3 × bare QMP', applies: calm, limit: timesPeer('pause', 1.3, 'bare QMP') },
  { ...pause, text: '≤ 1/10 of libvirt', applies: calm, limit: timesPeer('pause', 0.1, 'libvirt') },
  { ...pause, text: '≤ 60 ms', applies: at(200), limit: () => 60 },
  { ...pause, text: '≤ 1/5 of libvirt', applies: at(200), limit: timesPeer('pause', 0.2, 'libvirt') },
  {
    ...pause,
    text: '≤ 60 ms for 1 GiB, 150 ms for 4 GiB',
    applies: at(600),
    limit: (_, { memoryMiB }) => (memoryMiB > 1024 ? 150 : 60),
  },
  { ...pause, by: 'Stasis, huge pages', text: '≤ 30 ms', applies: at(600), limit: () => 30 },
  {
    figure: 'written by a live save, of memory',
    by: STASIS,
    text: '≤ 1.1 × memory',
    applies: at(600),
    limit: () => 1.1,
  },
  {
    figure: 'prediction',
    by: STASIS,
    text: 'within 30 % for 9 of 10 saves',
    of: ({ values }) => quantile(values.map(Math.abs), 0.9),
    limit: () => 30,
  },
  {
    figure: 'longest silence, seen from outside',
    by: STASIS,
    text: '≤ 30 ms in 99 of 100 saves',
    of: max,
    limit: () => 30,
  },
  ...['mapped', 'lazy'].map((by) => ({
    figure: SPAWN,
    by,
    text: "≤ 1.3 × QEMU's own start + 40 ms",
    limit: timesPeer(SPAWN, 1.3, 'QEMU alone, to its greeting', 40),
  })),
  {
    figure: 'until all memory is there',
    by: 'lazy',
    text: '≤ 1.3 × eager load by QEMU',
    limit: timesPeer('until all memory is there', 1.3, 'QEMU, eager'),
  },
  { figure: 'wait for a page, 99 of 100', by: 'lazy', text: '≤ 20 ms', limit: () => 20 },
  { figure: 'restore', by: '`stasis restore`, the whole command', text: '≤ 400 ms', limit: () => 400 },
  { figure: 'ten clones', by: 'all running', text: '≤ 3 s', limit: () => 3000 },
  {
    figure: 'memory of ten clones, of one guest',
    by: 'ten clones',
    text: '< 3 × one guest',
    limit: () => 3,
  },
  {
    figure: 'save and stop, rate',
    by: STASIS,
    text: '≥ 0.9 × bare QMP',
    limit: timesPeer('save and stop, rate', 0.9, 'bare QMP'),
    atLeast: true,
  },
];

/** @returns one verdict for every target and setting that was measured; a series without a value is one not met */
export function judge(results: Results): Verdict[] {
  return results.series.flatMap((series) =>
    TARGETS.filter(
      ({ figure, by, applies }) =>
        figure === series.figure && by === series.by && (applies?.(series.setting) ?? true),
    ).flatMap((target) => {
      const limit = target.limit(results, series.setting);
      if (limit === undefined) return [];
      const reached = (target.of ?? median)(series) ?? Number.NaN;
      const met = target.atLeast === true ? reached >= limit : reached <= limit;
      const { figure, by, text } = target;
      return [{ figure, by, text, setting: series.setting, limit, reached, met }];
    }),
  );
}

function quantile(values: readonly number[], part: number): number | undefined {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.ceil(sorted.length * part) - 1];
}
