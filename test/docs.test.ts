/** What the documents promise and what the code does are held to each other. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { ERRORS } from '../src/errors.ts';

const readme = readFileSync(join(import.meta.dirname, '../README.md'), 'utf8');

test('the table of errors in the README is the table in the code', () => {
  const rows = [...readme.matchAll(/^\| `([a-z-]+)` +\| (\d) +\| (\d{3}) +\|/gm)];
  const documented = rows.map(([, code, exit, http]) => [code, { http: Number(http), exit: Number(exit) }]);
  assert.deepEqual(Object.fromEntries(documented), ERRORS);
});

test('every failpoint action that the guide names exists', () => {
  const guide = readFileSync(join(import.meta.dirname, '../CONTRIBUTING.md'), 'utf8');
  for (const action of ['kill', 'error', 'guest', 'halt']) assert.match(guide, new RegExp(`\`${action}\``));
});
