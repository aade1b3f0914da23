/**
 * Faults at each step of work on logical volumes, with a guest that writes to them. Run by lvm.test.ts inside the guest with
 * LVM, where each case takes long: the tests have those where volumes come and go, `STASIS_FAULTS=all` walks every step.
 */
import { SCENARIOS, walkFailpoints, walkSome } from '../support/failpoint-walk.ts';
import { BOTH_VOLUMES } from '../support/lvm-ground.ts';

const BARE = { system: 'bare' } as const;
/** The guest with LVM can't track memory, and its chains are too short to be compacted. */
const LEFT_OUT = /background|lazily|compact/;

if (process.env['STASIS_FAULTS'] === 'all') {
  const only = process.env['STASIS_SCENARIO'];
  for (const scenario of SCENARIOS.filter(({ name }) => !LEFT_OUT.test(name)))
    if (only === undefined || scenario.name.startsWith(only)) walkFailpoints(scenario, BOTH_VOLUMES, BARE);
} else {
  walkSome(
    'faults on logical volumes',
    [
      ['live save', 'pause:before-switch', 'kill'],
      ['restore', 'load:before', 'kill'],
      ['delete in the middle of the tree, running', 'remove-layer:before', 'kill'],
    ],
    BOTH_VOLUMES,
    BARE,
  );
}
