import { test } from 'node:test';
import { testInLvmGuest } from '../support/lvm-guest.ts';

// The images of a guest on logical volumes, inside the guest with LVM. Emulated twice no system boots in a bearable time, but
// one that is a few KiB does (bare-guest/).

test('a guest on logical volumes', (t) => testInLvmGuest(t, 'test/e2e/lvm.inside.ts'));
