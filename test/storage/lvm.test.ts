import { test } from 'node:test';
import { testInLvmGuest } from '../support/lvm-guest.ts';

// LVM needs a device mapper: the tests of its driver run inside a guest that has one.

test('inside the guest with LVM', (t) =>
  testInLvmGuest(t, 'test/storage/lvm.inside.ts', 'test/storage/lvm-history.inside.ts'));
