/**
 * Faults at each step of work on logical volumes, with a guest that writes to a thin and a plain one. Run by lvm.test.ts
 * inside the guest with LVM: `STASIS_FAULTS=steps` walks every step with every fault, `STASIS_FAULTS=all` both sides of each,
 * anything else a few of those at which volumes come and go.
 */
import assert from 'node:assert/strict';
import {
  scenarioNamed,
  walkFailpoints,
  walkSome,
  type Bench,
  type Scenario,
} from '../support/failpoint-walk.ts';
import { BOTH_VOLUMES } from '../support/lvm-ground.ts';
import { contentOf } from '../support/rules.ts';

const GUEST = 'web1';
const CLONE = 'copy';
const BARE = { system: 'bare' } as const;
const ALL = { actions: ['error', 'guest', 'kill'] } as const;

/** Steps of a save that have nothing to do with volumes. */
const BESIDES = ['await-memory', 'media', 'screen', 'write-manifest'];

/**
 * Nothing on volumes is ever merged, and no chain gets long: what is about chains alone is not walked. First comes what changes
 * most of what there is.
 */
const WALKED: readonly Scenario[] = [
  scenarioNamed('restore', ALL),
  scenarioNamed('save of a guest on a copy, which becomes the file of the user', { ...ALL, skips: BESIDES }),
  scenarioNamed('start from the default image, which is consumed', ALL),
  scenarioNamed('delete in the middle of the tree, running', {
    ...ALL,
    name: 'delete, running',
    prepare: (bench) => bench.image('middle'),
  }),
  {
    name: 'clone',
    procedure: 'clone',
    keeps: 'target',
    prepare: () => Promise.resolve(),
    run: ({ lab }) => lab.client.restoreSaveImage(GUEST, 'target', { asNewGuest: CLONE }),
    actions: ['error', 'kill'],
    after: checkClone,
  },
  scenarioNamed('delete in the middle of the tree, stopped', {
    name: 'delete, stopped',
    actions: ['error', 'kill'],
    prepare: async (bench) => {
      await bench.image('middle');
      await bench.lab.client.stop(GUEST);
    },
  }),
  scenarioNamed('live save', {
    ...ALL,
    skips: BESIDES,
    inPause: ['pause:before-copy', 'pause:before-switch', 'pause:after-switch'],
  }),
];

/** It holds what the image does, or isn't there, and takes nothing with it when it goes. */
async function checkClone({ lab, expected }: Bench): Promise<void> {
  const clone = (await lab.client.listGuests()).find(({ name }) => name === CLONE);
  if (clone === undefined) return;
  if (clone.state === 'running') assert.deepEqual(await contentOf(lab, CLONE), expected.get('target'));
  if (clone.state === 'running') await lab.client.stop(CLONE);
  await lab.client.undefineGuest(CLONE);
}

if (['steps', 'all'].includes(process.env['STASIS_FAULTS'] ?? '')) {
  const only = process.env['STASIS_SCENARIO'];
  const walked = WALKED.filter(({ name }) => only === undefined || name.startsWith(only));
  walkFailpoints(walked, BOTH_VOLUMES, BARE);
} else {
  walkSome(
    'faults on logical volumes',
    [
      ['live save', 'pause:before-switch', 'kill'],
      ['live save', 'prepare:after', 'error'],
      ['restore', 'load:before', 'guest'],
    ],
    BOTH_VOLUMES,
    BARE,
  );
}
