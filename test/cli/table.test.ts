import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { stripVTControlCharacters } from 'node:util';
import fc from 'fast-check';
import { renderTable, type Cell, type Column } from '../../src/cli/table.ts';
import { fitText, printable, textWidth } from '../../src/cli/text-width.ts';

const anyText = fc.oneof(fc.string(), fc.string({ unit: 'grapheme' }), fc.string({ unit: 'binary' }));
const anyCell: fc.Arbitrary<Cell> = fc.oneof(
  anyText,
  fc.record({ text: anyText, style: fc.constant('red' as const) }),
);
const anyColumn: fc.Arbitrary<Column> = fc.record({
  title: fc.string({ maxLength: 12 }),
  align: fc.constantFrom('left' as const, 'right' as const),
  flexible: fc.boolean(),
  spare: fc.boolean(),
  cut: fc.constantFrom('start' as const, 'end' as const),
});
const anyTable = fc
  .array(anyColumn, { minLength: 1, maxLength: 8 })
  .chain((columns) =>
    fc.tuple(
      fc.constant(columns),
      fc.array(fc.array(anyCell, { minLength: columns.length, maxLength: columns.length }), { maxLength: 6 }),
    ),
  );

describe('a table', () => {
  test('is never wider than the terminal, whatever is in it', () => {
    fc.assert(
      fc.property(anyTable, fc.integer({ min: 1, max: 120 }), ([columns, rows], width) => {
        const lines = renderTable(columns, rows, width);
        assert.equal(lines.length, rows.length + 1);
        for (const line of lines)
          assert.ok(textWidth(stripVTControlCharacters(line)) <= width, JSON.stringify(line));
      }),
    );
  });

  test('is whole in a pipe', () => {
    fc.assert(
      fc.property(anyTable, ([columns, rows]) => {
        const lines = renderTable(columns, rows, Number.POSITIVE_INFINITY);
        for (const [index, cells] of rows.entries()) {
          const line = lines[index + 1] ?? '';
          for (const cell of cells) {
            assert.ok(line.includes(printable(typeof cell === 'string' ? cell : cell.text).trim()));
          }
        }
      }),
    );
  });

  const columns: Column[] = [
    { title: 'NAME', flexible: true },
    { title: 'SIZE', align: 'right' },
    { title: 'WHY' },
  ];

  test('has its numbers under each other and no trailing blanks', () => {
    assert.deepEqual(
      renderTable(
        columns,
        [
          ['web1', '1.0 GiB', ''],
          ['db', '312 MiB', 'x'],
        ],
        80,
      ),
      ['NAME     SIZE  WHY', 'web1  1.0 GiB', 'db    312 MiB  x'],
    );
  });

  test('cuts the flexible column, and spares the numbers', () => {
    assert.deepEqual(renderTable(columns, [['a-very-long-name', '1.0 GiB', 'x']], 26), [
      'NAME             SIZE  WHY',
      'a-very-long…  1.0 GiB  x',
    ]);
  });

  test('leaves out what can be spared before a name becomes unreadable', () => {
    const spared: Column[] = [...columns, { title: 'NOTE', flexible: true, spare: true }];
    assert.deepEqual(renderTable(spared, [['a-very-long-name', '1.0 GiB', 'x', 'a note']], 31), [
      'NAME                 SIZE  WHY',
      'a-very-long-name  1.0 GiB  x',
    ]);
  });
});

describe('a text', () => {
  test('knows its columns', () => {
    const widths = ['', 'abc', 'é', 'e\u0301', '漢字', '🙂', '👩‍👩‍👧', '…', '●'].map(textWidth);
    assert.deepEqual(widths, [0, 3, 1, 1, 4, 2, 2, 1, 1]);
  });

  test('is cut between graphemes', () => {
    assert.equal(fitText('漢字漢字', 5), '漢字…');
    assert.equal(fitText('漢字漢字', 4), '漢…');
    assert.equal(fitText('abc', 3), 'abc');
    assert.equal(fitText('abc', 0), '');
    assert.equal(fitText('/srv/web1.qcow2', 8, 'start'), '…1.qcow2');
  });

  test("can't steer the terminal", () => {
    assert.equal(printable('a\u001b[2Jb\nc\u202ed'), 'a\ufffd[2Jb\ufffdc\ufffdd');
  });
});
