import { test } from 'node:test';
import { testInLvmGuest } from '../support/lvm-guest.ts';

// A guest that writes to logical volumes, which are in a guest themselves: emulated twice, it boots in about a minute.

const skip = process.env['STASIS_NESTED'] === undefined && 'takes minutes: STASIS_NESTED=1 runs it';

test('a guest that writes to logical volumes', { skip }, (t) =>
  testInLvmGuest(t, 'test/campaign/lvm.inside.ts'),
);
