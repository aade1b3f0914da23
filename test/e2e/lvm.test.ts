import { test } from 'node:test';
import { testInLvmGuest } from '../support/lvm-guest.ts';

// A guest on logical volumes, which themselves are in a guest: emulated twice, hence one life only, and a slow one.

test('a guest on logical volumes', (t) => testInLvmGuest(t, 'test/e2e/lvm.inside.ts'));
