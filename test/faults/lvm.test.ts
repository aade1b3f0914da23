import { test } from 'node:test';
import { testInLvmGuest } from '../support/lvm-guest.ts';

test('faults on logical volumes, and random histories', (t) =>
  testInLvmGuest(t, 'test/faults/lvm.inside.ts', 'test/faults/lvm-history.inside.ts'));
