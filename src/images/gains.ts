/**
 * What deleting an image would really free, without reading a byte of it: from the records of the catalog, so that a list
 * of ten thousand images costs no ten thousand looks at files. Each is told for the image alone; deleting two may free more
 * than the sum, when a layer is held by both.
 *
 * For certain (`freesBytes`): its memory file and picture, unless a running guest's memory is mapped from that file, and
 * the layers that nothing else holds and nothing stands on. At most (`freesAtMostBytes`): also that file when the guest
 * has stopped; of a layer that would be merged with the one over it, as much as both can hold twice; and all of a
 * layer that shares blocks with others, of which nobody knows how many are its own.
 */
import { dirname } from 'node:path';
import { weighedLayers, type WeighedLayer } from '../catalog/holds.ts';
import type { Host } from '../guests/host.ts';
import { gains } from '../storage/gains.ts';
import type { Manifest } from './manifest.ts';

/** Bytes that would be free in a directory's file system. */
export interface GainPart {
  readonly directory: string;
  readonly certainBytes: number;
  readonly atMostBytes: number;
}

export interface ImageGain {
  readonly freesBytes: number;
  readonly freesAtMostBytes: number;
  readonly parts: readonly GainPart[];
}

interface WeighedImage {
  /** its file */
  readonly memory: string;
  readonly manifest: Pick<Manifest, 'memoryFile' | 'screen'>;
  /** ids */
  readonly pinned: readonly string[];
}

/** @returns for any image of the given guests what deleting it would free */
export async function imageGains(
  host: Host,
  guests: readonly string[],
): Promise<(image: WeighedImage) => ImageGain> {
  const { layers, heads } = await weighedLayers(host.catalog, guests);
  const byId = new Map(layers.map((layer) => [layer.id, layer]));
  const read = await host.readers.layers();
  const gainOf = gains({
    layers: layers.map((layer) => ({
      ...{ id: layer.id, parent: layer.parent, root: layer.root === 1 },
      fixed: !host.drivers.get(layer.driver).canTakeIn(layer),
    })),
    heads: new Set(heads),
    pins: new Map(layers.map(({ id, pins }) => [id, pins + (read.has(id) ? 1 : 0)])),
  });

  return (image) => {
    const { removed, merged } = gainOf(image.pinned);
    const parts = [memoryPart(host, image)];
    for (const id of removed) parts.push(removedPart(host, byId.get(id)));
    for (const { layer, child } of merged) parts.push(mergedPart(byId.get(layer), byId.get(child)));
    let [freesBytes, freesAtMostBytes] = [0, 0];
    for (const { certainBytes, atMostBytes } of parts) {
      freesBytes += certainBytes;
      freesAtMostBytes += atMostBytes;
    }
    return { freesBytes, freesAtMostBytes, parts };
  };
}

function memoryPart(host: Host, { memory, manifest: { memoryFile, screen } }: WeighedImage): GainPart {
  const screenBytes = screen?.storedBytes ?? 0;
  const atMostBytes = memoryFile.storedBytes + screenBytes;
  const isMapped = host.supervisor.mappedFrom(memory).length > 0;
  // Each image has a directory of its own below that of all of the guest's.
  const directory = dirname(dirname(memory));
  return { directory, certainBytes: isMapped ? screenBytes : atMostBytes, atMostBytes };
}

function removedPart(host: Host, layer: WeighedLayer | undefined): GainPart {
  const atMostBytes = layer?.storedBytes ?? 0;
  const isShared = layer !== undefined && host.drivers.get(layer.driver).capture === 'copy';
  return { directory: dirname(layer?.path ?? ''), certainBytes: isShared ? 0 : atMostBytes, atMostBytes };
}

function mergedPart(layer: WeighedLayer | undefined, child: WeighedLayer | undefined): GainPart {
  // Of what a guest writes to just now the size isn't known.
  const twiceBytes = Math.min(layer?.storedBytes ?? Infinity, child?.storedBytes ?? Infinity);
  return {
    directory: dirname(layer?.path ?? ''),
    certainBytes: 0,
    atMostBytes: twiceBytes === Infinity ? 0 : twiceBytes,
  };
}
