/** What programs and files of the host say, and what the host's monitoring is told of it. */
import assert from 'node:assert/strict';
import { Registry } from 'prom-client';
import { gaugesIn } from '../../src/daemon/metrics.ts';
import { readReport, REPORTS } from '../../src/qemu/block/image-tool.ts';
import { descriptorIn, matchesPattern } from '../../src/qemu/build/firmware.ts';
import { StasisError } from '../../src/errors.ts';
import { text, type Target } from './target.ts';

export const imageReport: Target = {
  name: 'image-report',
  reads: "qemu-img's JSON, which tells what stands in the header of somebody's disk",
  syntax: 'json',
  words: [
    '"format"',
    '"virtual-size"',
    '"backing-filename"',
    '"data-file"',
    '"leaks"',
    '9223372036854775807',
  ],
  handled: [],
  read: (input) => {
    const numbers = readAll(text(input)).flatMap((report) => Object.values(report));
    for (const value of numbers)
      assert.ok(typeof value !== 'number' || (Number.isSafeInteger(value) && value >= 0));
  },
};

/** The same text as each of the reports that it can be read as. */
function readAll(json: string): object[] {
  return (['info', 'check', 'measure'] as const).flatMap((name) => {
    try {
      const report = readReport(name, json);
      return [
        Object.fromEntries(
          Object.entries(report).filter(([member]) => Object.hasOwn(REPORTS[name].properties, member)),
        ),
      ];
    } catch (error) {
      if (error instanceof StasisError) return [];
      throw error;
    }
  });
}

/** The table has as many rows. */
const LONGEST_PATTERN = 100;

export const firmware: Target = {
  name: 'firmware',
  reads: "a firmware's descriptor, and after a line feed more of the patterns of machines that it is for",
  syntax: 'text',
  words: ['pc-q35-*', 'pc-i440fx-*', '*', '**', '*-*', '?', '[a-z]', '.', '"machines"', '"split"', '"qcow2"'],
  handled: [],
  read: (input) => {
    const [json = '', ...lines] = text(input).split('\n');
    const patterns = descriptorIn(json)?.targets.flatMap(({ machines }) => machines) ?? [];
    for (const pattern of [...patterns, ...lines].map((each) => each.slice(0, LONGEST_PATTERN))) {
      for (const name of ['pc-q35-10.0', 'pc-i440fx-9.2', 'q35', 'a'.repeat(64)])
        assert.equal(matchesPattern(name, pattern), matchesByTable(name, pattern), `${name} ${pattern}`);
    }
  },
};

/** The same by the book: which beginnings of the name each beginning of the pattern matches. */
function matchesByTable(name: string, pattern: string): boolean {
  let row = Array.from({ length: name.length + 1 }, (_, at) => at === 0);
  for (const sign of pattern) {
    const before = row;
    let reached = false;
    row = before.map((matched, at) => {
      reached ||= matched;
      return sign === '*' ? reached : at > 0 && before[at - 1] === true && name[at - 1] === sign;
    });
  }
  return row.at(-1) === true;
}

export const metrics: Target = {
  name: 'metrics',
  reads: 'names of guests, disks and file systems, into the text that Prometheus reads',
  syntax: 'text',
  words: ['"', '\\', '\\n', '\n', '"} 1\nstasis_images{state="ready', '#', '\r', '\u2028', '{', '}'],
  handled: [],
  read: async (input) => {
    const [guest = '', disk = '', mountpoint = ''] = text(input).split('\0');
    const registry = new Registry();
    const gauges = gaugesIn(registry);
    gauges.chainDepth.set({ guest, disk }, 1);
    gauges.free.set({ mountpoint }, 2);
    const told = await registry.metrics();
    const series = told.split('\n').filter((line) => !line.startsWith('#') && line.includes('{'));
    assert.deepEqual(series.map(labelsOf), [{ guest, disk }, { mountpoint }]);
  },
};

/** As the text format has it: `name{label="value",…} number`, in a value `\\`, `\"` and `\n` escaped. */
function labelsOf(line: string): Record<string, string> {
  const [whole = ''] = /\{(?:[a-z]+="(?:[^"\\]|\\["\\n])*",?)*\} \d+$/u.exec(line) ?? [];
  return Object.fromEntries(
    [...whole.matchAll(/([a-z]+)="((?:[^"\\]|\\["\\n])*)"/gu)].map(([, label = '', value = '']) => [
      label,
      value.replaceAll(/\\(["\\n])/g, (_, sign: string) => (sign === 'n' ? '\n' : sign)),
    ]),
  );
}
