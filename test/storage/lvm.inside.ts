import assert from 'node:assert/strict';
import { test } from 'node:test';
import { execFileSync } from 'node:child_process';

test('the guest has a device mapper with thin pools, snapshots and faults', () => {
  const targets = execFileSync('dmsetup', ['targets'], { encoding: 'utf8' });
  for (const target of ['thin-pool', 'snapshot', 'flakey'])
    assert.match(targets, new RegExp(`^${target} `, 'm'));
});
