/** What a policy comes to at a boot of the host. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ON_BOOT } from '../../src/api/constants.ts';
import { chooseForBoot } from '../../src/policy/boot-choice.ts';

const there = { isRunning: false, onDemand: false } as const;

test('each policy with each standing of the default image', () => {
  const table = ON_BOOT.map((onBoot) =>
    (['present', 'past', 'none'] as const).map((image) => chooseForBoot({ ...there, onBoot, image }).action),
  );
  assert.deepEqual(Object.fromEntries(ON_BOOT.map((onBoot, index) => [onBoot, table[index]])), {
    restore: ['restore', 'start', 'start'],
    start: ['start', 'start', 'start'],
    'skip-if-saved': ['nothing', 'nothing', 'start'],
    none: ['nothing', 'nothing', 'nothing'],
  });
});

test('what was left for restore-all is restored by it', () => {
  const asked = { ...there, onDemand: true, onBoot: 'skip-if-saved' } as const;
  assert.equal(chooseForBoot({ ...asked, image: 'present' }).action, 'restore');
  assert.equal(chooseForBoot({ ...asked, image: 'past' }).action, 'start');
});

test('a guest that runs is left alone, whatever its policy', () => {
  for (const onBoot of ON_BOOT)
    for (const onDemand of [true, false])
      assert.equal(chooseForBoot({ onBoot, image: 'present', isRunning: true, onDemand }).action, 'nothing');
});
