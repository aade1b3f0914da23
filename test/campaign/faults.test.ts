/** A few short histories with faults (test/support/campaign/history.ts). The campaign is `npm run campaign`. */
import { test } from 'node:test';
import { live, told } from '../support/campaign/history.ts';
import { GROUNDS } from '../support/grounds.ts';

const STEPS = 5;
const XFS = GROUNDS.find(({ name }) => name === 'reflinks beside overlays');

for (const { seed, ground } of [
  { seed: 5, ground: undefined },
  { seed: 6, ground: XFS },
]) {
  const where = ground === undefined ? '' : `, ${ground.name}`;
  test(
    `a random history with faults, seed ${seed}${where}`,
    { skip: ground?.skip ?? false },
    async (context) => {
      await live({
        ...{ seed, steps: STEPS, ground, signal: context.signal },
        onStep: (step) => context.diagnostic(told(step)),
      });
    },
  );
}
