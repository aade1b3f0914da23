/**
 * Faults at each step of work on logical volumes, with a guest that writes to them. Run by lvm.test.ts inside the guest with
 * LVM, where each case takes long: the tests walk what is done with volumes, `STASIS_FAULTS=all` everything.
 */
import { SCENARIOS, walkFailpoints, type Scenario } from '../support/failpoint-walk.ts';
import { BOTH_VOLUMES } from '../support/lvm-ground.ts';

const isCampaign = process.env['STASIS_FAULTS'] === 'all';
const only = process.env['STASIS_SCENARIO'];

/** What a test does of a scenario; null walks it in campaigns only. */
const SHORT: Readonly<Record<string, Partial<Scenario> | null>> = {
  'live save': { steps: ['seal'], inPause: ['pause:before-switch'], actions: ['kill'] },
  save: null,
  restore: { steps: ['load'], actions: ['kill'] },
  'start from the default image, which is consumed': null,
  'delete in the middle of the tree, running': { steps: ['remove-layer'], actions: ['kill'] },
  'delete in the middle of the tree, stopped': null,
  'delete of the only image, whose layer is folded under the running guest': null,
};

for (const [name, short] of Object.entries(SHORT)) {
  const scenario = SCENARIOS.find((candidate) => candidate.name === name);
  if (scenario === undefined) throw new Error(`no scenario "${name}"`);
  if (only !== undefined && only !== name) continue;
  if (isCampaign) walkFailpoints(scenario, BOTH_VOLUMES, { system: 'bare' });
  else if (short !== null) walkFailpoints({ ...scenario, ...short }, BOTH_VOLUMES, { system: 'bare' });
}
