import { test } from 'node:test';
import { testInLvmGuest } from '../support/lvm-guest.ts';

// All with a guest on logical volumes, in one guest with LVM: until one runs and has started its first daemon takes a while.

const { STASIS_FAULTS, STASIS_REBUILD, STASIS_STEPS } = process.env;
/** What is asked for: minutes each, up to hours. */
const CAMPAIGNS = [
  ...(STASIS_REBUILD === undefined ? [] : ['test/e2e/lvm-rebuild.inside.ts']),
  ...(STASIS_FAULTS === undefined ? [] : ['test/faults/lvm.inside.ts']),
  ...(STASIS_STEPS === undefined ? [] : ['test/faults/lvm-history.inside.ts']),
];

test('a guest on logical volumes', (t) =>
  testInLvmGuest(t, ...(CAMPAIGNS.length === 0 ? ['test/e2e/lvm.inside.ts'] : CAMPAIGNS)));
