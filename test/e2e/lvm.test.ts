import { test } from 'node:test';
import { testInLvmGuest } from '../support/lvm-guest.ts';

// All with a guest on logical volumes, in one guest with LVM: until one runs and has started its first daemon takes a while.
// Emulated twice no system boots in a bearable time, but one that is a few KiB does (bare-guest/).

const { STASIS_FAULTS, STASIS_STEPS } = process.env;
/** Minutes each, where everything is emulated twice: only when they are asked for. */
const CAMPAIGNS = [
  ...(STASIS_FAULTS === undefined ? [] : ['test/faults/lvm.inside.ts']),
  ...(STASIS_STEPS === undefined ? [] : ['test/faults/lvm-history.inside.ts']),
];

test('a guest on logical volumes', (t) => testInLvmGuest(t, 'test/e2e/lvm.inside.ts', ...CAMPAIGNS));
