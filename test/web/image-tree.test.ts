/** The image tree's layout: lines that never cross an image that isn't theirs. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Image } from '../../src/api/schemas.ts';
import { layOutTree } from '../../src/web/image-tree.ts';

/** Images in the order they were taken, each with the one it derives from. */
function taken(...pairs: readonly (readonly [name: string, parent: string | null])[]): Image[] {
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the layout looks at no more than these
  return pairs.map(([name, parent], index) => ({
    name,
    parent,
    createdAt: new Date(index * 1000).toISOString(),
  })) as Image[];
}

function drawn(images: readonly Image[], current: string | null): string[] {
  const { rows } = layOutTree(images, current);
  return rows.map(
    ({ image, lane, parentRow }) =>
      `${image?.name ?? 'now'}@${lane}→${parentRow === null ? '' : rows[parentRow]?.image?.name}`,
  );
}

test('a chain is one line, newest first, with the present on top', () => {
  assert.deepEqual(drawn(taken(['a', null], ['b', 'a'], ['c', 'b']), 'c'), [
    'now@0→c',
    'c@0→b',
    'b@0→a',
    'a@0→',
  ]);
});

test('what was gone back from stands beside the way to the present', () => {
  const images = taken(['a', null], ['b', 'a'], ['c', 'b'], ['d', 'a']);
  assert.deepEqual(drawn(images, 'd'), ['now@0→d', 'd@0→a', 'c@1→b', 'b@1→a', 'a@0→']);
});

test('a line that has ended leaves its place to another', () => {
  const images = taken(['a', null], ['x', null], ['y', 'x'], ['b', 'a']);
  const { lanes } = layOutTree(images, 'b');
  assert.equal(lanes, 2);
  assert.deepEqual(drawn(images, null)[0], 'now@0→');
});

test('no line passes through an image that is not on it', () => {
  const images = taken(['a', null], ['b', 'a'], ['c', 'a'], ['d', 'b'], ['e', 'c'], ['f', 'a'], ['g', 'd']);
  const { rows } = layOutTree(images, 'e');
  for (const [index, { lane, parentRow }] of rows.entries()) {
    for (let between = index + 1; between < (parentRow ?? 0); between += 1)
      assert.notEqual(rows[between]?.lane, lane, `the line from row ${index} passes row ${between}`);
  }
});
