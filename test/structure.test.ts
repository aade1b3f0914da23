import assert from 'node:assert/strict';
import { test } from 'node:test';
import { findViolations } from '../scripts/check-structure.ts';

test('an import against the arrows is found', () => {
  const files = [{ path: 'qemu/qmp.ts', text: "import { saveProcedure } from '../images/save.ts';" }];
  assert.deepEqual(findViolations([...files, { path: 'images/save.ts', text: '' }]), [
    'qemu/qmp.ts must not know images/save.ts',
  ]);
});

test('an import along the arrows is not', () => {
  const text =
    "import { QmpClient } from '../qemu/qmp.ts';\nimport { StasisError } from '../errors.ts';\nimport { seal } from './disks.ts';";
  assert.deepEqual(findViolations([{ path: 'guests/boot.ts', text }]), []);
});

test('a cycle of files is found', () => {
  const files = [
    { path: 'guests/a.ts', text: "import './b.ts';\nexport { b } from './b.ts';" },
    { path: 'guests/b.ts', text: "export { a } from './a.ts';" },
  ];
  assert.deepEqual(findViolations(files), ['a cycle: guests/a.ts → guests/b.ts → guests/a.ts']);
});
