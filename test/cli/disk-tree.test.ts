import assert from 'node:assert/strict';
import { test } from 'node:test';
import { stripVTControlCharacters } from 'node:util';
import fc from 'fast-check';
import type { DiskTree } from '../../src/api/schemas.ts';
import { layOutLayers, renderDisk } from '../../src/cli/disk-tree.ts';

type Layer = DiskTree['layers'][number];

function aLayer(id: string, fields: Partial<Layer> = {}): Layer {
  const path = `/l/${id}`;
  return {
    ...{ id, path, parent: null, root: false, format: 'qcow2', driver: 'overlay', sizeBytes: 64 * 1024 ** 2 },
    ...{ storedBytes: 200 * 1024, writers: [], images: [], readers: 0, ...fields },
  };
}

const DISK = {
  ...{ guest: 'web1', disk: 'root', path: '/l/0', format: 'raw', bus: 'virtio', readonly: false },
  driver: 'overlay' as const,
};

test('a disk is shown with what holds each layer, and branches only where it does', () => {
  const layers = [
    aLayer('0', { root: true, format: 'raw', storedBytes: 1024 ** 2 }),
    aLayer('aaaaaaaa11', { parent: '0', images: [{ guest: 'web1', name: 'first' }] }),
    aLayer('bbbbbbbb22', { parent: 'aaaaaaaa11', images: [{ guest: 'web1', name: 'second' }] }),
    aLayer('cccccccc33', { parent: 'bbbbbbbb22', writers: ['web1'] }),
    aLayer('dddddddd44', { parent: 'bbbbbbbb22', images: [{ guest: 'copy', name: 'x' }] }),
    aLayer('eeeeeeee55', { parent: 'dddddddd44', writers: ['copy'], storedBytes: null }),
  ];
  assert.deepEqual(renderDisk({ ...DISK, layers }, 100).map(stripVTControlCharacters), [
    'web1 / root  raw, virtio, overlay',
    '6 layers, 1.8 MiB stored',
    'LAYER             SIZE   STORED  HELD BY      FORMAT  FILE',
    '○ root        64.0 MiB  1.0 MiB               raw     /l/0',
    '○ aaaaaaaa    64.0 MiB  200 KiB  first        qcow2   /l/aaaaaaaa11',
    '○ bbbbbbbb    64.0 MiB  200 KiB  second       qcow2   /l/bbbbbbbb22',
    '├─● cccccccc  64.0 MiB  200 KiB  web1 writes  qcow2   /l/cccccccc33',
    '└─○ dddddddd  64.0 MiB  200 KiB  copy / x     qcow2   /l/dddddddd44',
    '  ● eeeeeeee  64.0 MiB  missing  copy writes  qcow2   /l/eeeeeeee55',
  ]);
});

test('a disk that is not captured says so', () => {
  const lines = renderDisk({ ...DISK, readonly: true, driver: null, layers: [] }, 100).map(
    stripVTControlCharacters,
  );
  assert.deepEqual(lines, ['web1 / root  raw, virtio, read-only', 'not captured: /l/0']);
});

test('every layer is shown exactly once', () => {
  const tree = fc.array(fc.nat(), { maxLength: 20 });
  fc.assert(
    fc.property(tree, (choices) => {
      const layers = [aLayer('0')];
      for (const [index, choice] of choices.entries())
        layers.push(aLayer(String(index + 1), { parent: String(choice % (index + 1)) }));
      const shown = layOutLayers(layers).map(({ layer }) => layer.id);
      assert.deepEqual(shown.toSorted(), layers.map(({ id }) => id).toSorted());
    }),
  );
});
