import assert from 'node:assert/strict';
import { test } from 'node:test';
import { stripVTControlCharacters } from 'node:util';
import fc from 'fast-check';
import type { Guest, Image } from '../../src/api/schemas.ts';
import { layOutTree, renderTree } from '../../src/cli/tree.ts';
import { aGuest, anImage } from '../support/documents.ts';

const NOW = Date.parse('2026-06-15T12:00:00Z');

function lines(guest: Guest, images: Image[]): string[] {
  return renderTree(guest, images, 100, NOW).map((line) => stripVTControlCharacters(line));
}

test('a tree shows what grew from what, and where the guest is now', () => {
  const images = [
    anImage({ name: 'fresh', createdAt: '2026-06-12T12:00:00Z', live: false, pauseMs: null }),
    anImage({ name: 'updated', parent: 'fresh', createdAt: '2026-06-13T12:00:00Z' }),
    anImage({ name: 'tuned', parent: 'updated', createdAt: '2026-06-14T12:00:00Z', current: true }),
    anImage({ name: 'other', parent: 'fresh', createdAt: '2026-06-15T11:00:00Z', freesBytes: 8 * 1024 ** 2 }),
    anImage({ name: 'apart', parent: 'deleted', createdAt: '2026-06-15T11:59:00Z' }),
  ];
  assert.deepEqual(lines(aGuest(), images), [
    'web1  running',
    'IMAGE            TAKEN   STORED            FREES  HOW                 DESCRIPTION',
    '○ fresh        3 d ago  312 MiB          312 MiB  stopped',
    '├─○ updated    2 d ago  312 MiB          312 MiB  live, paused 13 ms',
    '│ └─● tuned   24 h ago  312 MiB          312 MiB  live, paused 13 ms',
    '└─○ other      1 h ago  312 MiB  8.0 MiB–312 MiB  live, paused 13 ms',
    '○ apart      1 min ago  312 MiB          312 MiB  live, paused 13 ms',
  ]);
});

test('a guest without images says so', () => {
  assert.deepEqual(lines(aGuest(), []), ['web1  running', 'no images']);
});

test('every image is shown exactly once, even if parents form a ring', () => {
  const name = fc.constantFrom('a', 'b', 'c', 'd', 'e', 'f');
  const parents = fc.uniqueArray(fc.tuple(name, fc.option(name)), { selector: ([image]) => image });
  fc.assert(
    fc.property(parents, (links) => {
      const images = links.map(([image, parent]) => anImage({ name: image, parent }));
      const shown = layOutTree(images).map((branch) => branch.image.name);
      assert.deepEqual(shown.toSorted(), links.map(([image]) => image).toSorted());
    }),
  );
});
