import assert from 'node:assert/strict';
import { test } from 'node:test';
import { stripVTControlCharacters } from 'node:util';
import { renderProgress } from '../../src/cli/progress.ts';
import { operation } from '../support/fake-daemon.ts';

const halfway = operation({ bytesDone: 512 * 1024 ** 2, bytesTotal: 1024 ** 3 });

function line(rate: number, width: number): string {
  return stripVTControlCharacters(renderProgress(halfway, rate, width));
}

test('progress tells phase, bytes, rate and remaining time', () => {
  assert.equal(
    line(256 * 1024 ** 2, 120),
    'save web1 / img  memory  ━━━━━━━━━━━━────────────   50 %  512 MiB of 1.0 GiB  256 MiB/s  2.0 s left',
  );
});

test('progress leaves out what it does not know', () => {
  assert.equal(line(0, 120), 'save web1 / img  memory  ━━━━━━━━━━━━────────────   50 %  512 MiB of 1.0 GiB');
  assert.equal(renderProgress(operation({ phase: 'merging' }), 0, 80), 'save web1 / img  merging …');
});

test('progress takes one line, however narrow the terminal', () => {
  for (let width = 1; width < 130; width += 1) assert.ok(line(1e6, width).length <= width, `at ${width}`);
});
