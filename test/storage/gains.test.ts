import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { gains } from '../../src/storage/gains.ts';
import { afterCollectStep, collectSteps, type LayerForest } from '../../src/storage/layers.ts';

/** A forest in which nothing is left to be collected, with the layers that each image pins. */
const settled = fc
  .record({
    parents: fc.array(fc.nat(), { maxLength: 12 }),
    heads: fc.array(fc.nat(), { maxLength: 3 }),
    images: fc.array(fc.nat(), { minLength: 1, maxLength: 6 }),
  })
  .map(({ parents, heads, images }) => {
    const layers = [{ id: '0', parent: null as string | null, root: true }];
    for (const [index, choice] of parents.entries())
      layers.push({ id: String(index + 1), parent: String(choice % (index + 1)), root: false });
    const pick = (choice: number) => String(choice % layers.length);
    const pins = images.map(pick);
    const forest = {
      layers,
      heads: new Set(heads.map(pick)),
      pinned: new Set(pins),
      owners: new Map<string, string>(),
    };
    return collected(forest, pins);
  });

function collected(start: LayerForest, pins: readonly string[]) {
  let forest = start;
  let moved = pins;
  for (let [step] = collectSteps(forest); step !== undefined; [step] = collectSteps(forest)) {
    const done = step;
    forest = afterCollectStep(forest, done);
    if (done.action === 'fold') moved = moved.map((pin) => (pin === done.layer ? done.into : pin));
  }
  return { forest, pins: moved };
}

test('what an image holds alone is what would be collected without it', () => {
  fc.assert(
    fc.property(settled, ({ forest, pins }) => {
      const counts = new Map(forest.layers.map(({ id }) => [id, pins.filter((pin) => pin === id).length]));
      const gainOf = gains({ ...forest, pins: counts });
      for (const [index, pin] of pins.entries()) {
        const rest = pins.filter((_, other) => other !== index);
        const removed = new Set<string>();
        const merged = new Set<string>();
        let after: LayerForest = { ...forest, pinned: new Set(rest) };
        for (let [step] = collectSteps(after); step !== undefined; [step] = collectSteps(after)) {
          if (step.action === 'remove') removed.add(step.layer);
          else
            merged.add(step.action === 'fold' ? `${step.into} ${step.layer}` : `${step.layer} ${step.into}`);
          after = afterCollectStep(after, step);
        }
        const gain = gainOf([pin]);
        assert.deepEqual(new Set(gain.removed), removed);
        assert.deepEqual(new Set(gain.merged.map(({ layer, child }) => `${layer} ${child}`)), merged);
      }
    }),
    { numRuns: 500 },
  );
});
