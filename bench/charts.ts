/**
 * Charts as plain SVG: a bar for each median, a line from minimum to maximum, a mark for what was to be reached. Text
 * is text, and colours follow the reader's choice of light or dark.
 */
import { numberText, settingText, spread, type Results, type Series, type Setting } from './figures.ts';
import { GAVE_UP } from './peers/peer.ts';
import { judge } from './targets.ts';

export interface Chart {
  /** of the file, without its ending */
  readonly name: string;
  readonly title: string;
  readonly figure: string;
  readonly unit: string;
  readonly applies?: (setting: Setting) => boolean;
}

const CHARTS: readonly Chart[] = [
  {
    name: 'pause-1g',
    title: 'Pause of a live save, 1 GiB guest writing to two disks',
    figure: 'pause',
    unit: 'ms',
    applies: ({ memoryMiB }) => memoryMiB <= 1024,
  },
  {
    name: 'pause-4g',
    title: 'Pause of a live save, 4 GiB guest writing to two disks',
    figure: 'pause',
    unit: 'ms',
    applies: ({ memoryMiB }) => memoryMiB > 1024,
  },
  {
    name: 'silence',
    title: 'Longest silence of a guest during a whole live save',
    figure: 'longest silence, seen from outside',
    unit: 'ms',
  },
  {
    name: 'restore',
    title: 'Restore, until the guest answers',
    figure: 'restore, until the guest answers',
    unit: 'ms',
  },
  {
    name: 'spawn',
    title: 'Start of QEMU to guest running',
    figure: 'start of QEMU to guest running',
    unit: 'ms',
  },
  { name: 'stopped', title: 'Save and stop', figure: 'save and stop, rate', unit: 'MB/s' },
];

const WIDTH = 760;
const LABELS = 250;
const VALUES = 180;
const ROW = 20;
const HEADING = 26;
const TOP = 44;
const BAR = 12;

/** @returns files by name; a chart of which nothing was measured is left out */
export function drawCharts(results: Results): Map<string, string> {
  const drawn = new Map<string, string>();
  for (const chart of CHARTS) {
    const series = results.series.filter(
      ({ figure, setting }) => figure === chart.figure && (chart.applies?.(setting) ?? true),
    );
    if (series.length > 0) drawn.set(`${chart.name}.svg`, draw(chart, series, results));
  }
  return drawn;
}

function draw({ title, unit }: Chart, series: readonly Series[], results: Results): string {
  const most = Math.max(1, ...series.flatMap(({ values }) => values));
  const xOf = (value: number) => LABELS + (value / most) * (WIDTH - LABELS - VALUES);
  const parts: string[] = [];
  let y = TOP;
  for (const [setting, group] of groupBySetting(series)) {
    parts.push(text(12, y + 14, setting, 'heading'));
    y += HEADING;
    for (const one of group) {
      parts.push(...row(one, y, unit, xOf, limitOf(one, results)));
      y += ROW;
    }
    y += 8;
  }
  const height = y + 8;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img">`,
    `<title>${escape(title)}</title>`,
    `<style>${STYLE}</style>`,
    `<rect class="back" width="${WIDTH}" height="${height}" rx="8"/>`,
    text(12, 26, `${title}, ${unit}`, 'title'),
    ...parts,
    '</svg>',
    '',
  ].join('\n');
}

/** The strictest limit that is set for it. */
function limitOf({ figure, by, setting }: Series, results: Results): number | undefined {
  const limits = judge(results)
    .filter((verdict) => verdict.figure === figure && verdict.by === by && verdict.setting === setting)
    .map(({ limit }) => limit);
  return limits.length === 0 ? undefined : Math.min(...limits);
}

function row(
  { by, values, notes }: Series,
  y: number,
  unit: string,
  xOf: (value: number) => number,
  limit: number | undefined,
): string[] {
  const middle = y + ROW / 2;
  const label = text(LABELS - 10, middle + 4, by.replaceAll('`', ''), 'label');
  const found = spread(values);
  if (found === undefined) return [label, text(LABELS + 4, middle + 4, notes.join('; '), 'value')];
  const { median, min, max } = found;
  const said = [`${numberText(median)} ${unit}`, ...notes.filter((note) => note === GAVE_UP)].join(', ');
  const own = by.startsWith('Stasis') || by === 'mapped' || by === 'lazy' || by.startsWith('`stasis');
  const mark = limit === undefined || xOf(limit) > WIDTH - VALUES ? undefined : xOf(limit);
  return [
    label,
    `<rect class="${own ? 'own' : 'other'}" x="${LABELS}" y="${middle - BAR / 2}" width="${(xOf(median) - LABELS).toFixed(1)}" height="${BAR}" rx="2"/>`,
    `<path class="range" d="M${xOf(min).toFixed(1)} ${middle}H${xOf(max).toFixed(1)}"/>`,
    ...(mark === undefined ? [] : [`<path class="limit" d="M${mark.toFixed(1)} ${y + 1}v${ROW - 2}"/>`]),
    text(Math.max(xOf(max), mark ?? 0) + 8, middle + 4, said, 'value'),
  ];
}

function groupBySetting(series: readonly Series[]): Map<string, Series[]> {
  return Map.groupBy(series, ({ setting }) => settingText(setting));
}

function text(x: number, y: number, content: string, kind: string): string {
  return `<text class="${kind}" x="${x.toFixed(1)}" y="${y}">${escape(content)}</text>`;
}

function escape(content: string): string {
  return content.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}

const STYLE = `
text{font:12px system-ui,-apple-system,"Segoe UI",sans-serif;fill:#24292f}
.title{font-size:14px;font-weight:600}.heading{font-weight:600}.label{text-anchor:end}
.back{fill:#fff}.own{fill:#1f7a5c}.other{fill:#9aa5b1}
.range{stroke:#24292f;stroke-width:1.5}.limit{stroke:#c2410c;stroke-width:2}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.back{fill:#0d1117}.own{fill:#3fb68b}.other{fill:#6e7781}
.range{stroke:#e6edf3}.limit{stroke:#fb923c}}
`.trim();
