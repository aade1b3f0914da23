import { test } from 'node:test';
import { testInLvmGuest } from '../support/lvm-guest.ts';

// The images of a guest on logical volumes, inside the guest with LVM. Emulated twice no system boots in a bearable time, so
// its machine stays in the firmware and the test writes to its disks (test/campaign/lvm.test.ts has a guest that does).

test('a guest on logical volumes', (t) => testInLvmGuest(t, 'test/e2e/lvm.inside.ts'));
