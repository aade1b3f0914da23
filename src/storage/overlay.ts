/**
 * Layers that stand on each other: a qcow2 file holds what was written since, and reads through to the layer below for
 * the rest. Over qcow2 and raw files and over block devices, on any file system. A capture switches the guest to an empty
 * overlay within QEMU, which takes a millisecond or two whatever the disk's size; images/collect.ts merges layers when one goes.
 */
import { rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { StasisError } from '../errors.ts';
import { newId } from '../ids.ts';
import type { ImageTool } from '../qemu/block/image-tool.ts';
import type { LayerFile, Place, PlannedLayer, StorageDriver } from './driver.ts';
import { makeDirectory, syncFile } from './durable.ts';
import { readIdentity } from './identity.ts';

/** Names an overlay over a layer of any driver. */
export function planOverlay(from: LayerFile, place: Place, directory = place.directory): PlannedLayer {
  const id = newId();
  return {
    id,
    disk: place.disk,
    path: join(directory, `${place.disk}-${id}.qcow2`),
    format: 'qcow2',
    sizeBytes: from.sizeBytes,
    parent: from.id,
    from: from.id,
    driver: 'overlay',
  };
}

export function overlay(tool: ImageTool): StorageDriver {
  return {
    name: 'overlay',
    capture: 'switch',
    whyNot: () => Promise.resolve(undefined),
    planHead: planOverlay,

    async make(layer, from, signal) {
      await makeDirectory(dirname(layer.path));
      await tool.createOverlay(
        {
          path: layer.path,
          backing: from.path,
          backingFormat: from.format,
          virtualSizeBytes: layer.sizeBytes,
        },
        { signal },
      );
    },

    settle: ({ path }) => syncFile(path),
    remove: ({ path }) => rm(path, { force: true }),
    canTakeIn: () => true,
    identity: ({ path }) => readIdentity(path),

    replaceRoot: ({ id }) =>
      Promise.reject(new StasisError('internal', `layer ${id} is no copy: overlays are folded`)),
  };
}
