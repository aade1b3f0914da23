/** Results as text: a table of everything, and a short one with what was to be reached. Markdown, as oxfmt has it. */
import { settingText, spread, spreadText, type Results, type Series } from './figures.ts';
import { machineText } from './machine.ts';
import { judge, type Verdict } from './targets.ts';

export function fullReport(results: Results): string {
  return [
    '# Results',
    '',
    `Measured ${results.measuredAt.slice(0, 10)} with \`${results.command}\`: ${machineText(results.machine)}. Median (minimum–maximum).`,
    ...results.skipped.flatMap((skipped) => ['', `Left out: ${skipped.replaceAll(/\s+/g, ' ')}`]),
    '',
    '## What was to be reached',
    '',
    ...verdictTable(judge(results)),
    '',
    '## Everything',
    '',
    ...table(
      ['figure', 'guest', 'by', 'unit', 'median (min–max)', 'times', ''],
      results.series.map((series) => [
        series.figure,
        settingText(series.setting),
        series.by,
        series.unit,
        valuesText(series),
        String(series.values.length),
        series.notes.join('; '),
      ]),
    ),
    '',
  ].join('\n');
}

/** The README's part: what it says is what `results` say. */
export function summary(results: Results): string {
  return [
    `Measured ${results.measuredAt.slice(0, 10)}: ${machineText(results.machine)}. All takes turns in one run; medians.`,
    '',
    ...verdictTable(judge(results)),
  ].join('\n');
}

function verdictTable(verdicts: readonly Verdict[]): string[] {
  return table(
    ['figure', 'guest', 'by', 'reached', 'to be reached', ''],
    verdicts.map(({ figure, setting, by, reached, limit, text, met }) => [
      figure,
      settingText(setting),
      by,
      Number.isNaN(reached) ? '–' : short(reached),
      text.includes(short(limit)) ? text : `${text} = ${short(limit)}`,
      met ? 'yes' : '**no**',
    ]),
  );
}

function valuesText({ values }: Series): string {
  const found = spread(values);
  return found === undefined ? '–' : spreadText(found);
}

function short(value: number): string {
  return String(Number(value.toPrecision(value < 100 ? 2 : 3)));
}

/** Columns as wide as their widest cell. */
function table(head: readonly string[], rows: readonly (readonly string[])[]): string[] {
  const widths = head.map((title, column) =>
    Math.max(3, title.length, ...rows.map((row) => row[column]?.length ?? 0)),
  );
  const line = (cells: readonly string[]) =>
    `| ${widths.map((width, column) => (cells[column] ?? '').padEnd(width)).join(' | ')} |`;
  return [line(head), `| ${widths.map((width) => '-'.repeat(width)).join(' | ')} |`, ...rows.map(line)];
}
