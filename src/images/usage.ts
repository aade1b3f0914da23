/** What a guest's images occupy, all together and each alone, from the records of the catalog. */
import { DEFAULT_IMAGE } from '../api/constants.ts';
import { listImages, type ImageRecord } from '../catalog/images.ts';
import { pinnedLayers } from '../catalog/layers.ts';
import type { Host } from '../guests/host.ts';
import { manifestOf } from './load.ts';

export interface WeighedImage {
  readonly id: string;
  readonly name: string;
  readonly createdAt: string;
  readonly schedule: string | null;
  readonly isDefault: boolean;
  readonly isProtected: boolean;
  readonly isReady: boolean;
  readonly verifiedAt: string | null;
  /** memory file, picture and the layers that no other image of the guest pins */
  readonly ownBytes: number;
}

export interface Usage {
  readonly images: readonly WeighedImage[];
  /** a layer that several pin counts once, the user's own file not at all */
  readonly usedBytes: number;
}

export async function usageOf({ catalog }: Host, guest: string): Promise<Usage> {
  const records = await listImages(catalog, guest);
  const pins = await pinnedLayers(catalog, [guest]);
  const pinners = Map.groupBy(pins, ({ layerId }) => layerId);
  const ofImage = Map.groupBy(pins, ({ image }) => image);
  const bytesOf = (pin: (typeof pins)[number]) => (pin.root === 1 ? 0 : (pin.storedBytes ?? 0));
  const images = records.map((record) => {
    const own = (ofImage.get(record.id) ?? []).filter(({ layerId }) => pinners.get(layerId)?.length === 1);
    return weighed(
      record,
      own.reduce((sum, pin) => sum + bytesOf(pin), 0),
    );
  });
  const layerBytes = [...pinners.values()].reduce((sum, [pin]) => sum + (pin ? bytesOf(pin) : 0), 0);
  const usedBytes = records.reduce((sum, record) => sum + memoryBytes(record), layerBytes);
  return { images, usedBytes };
}

function weighed(record: ImageRecord, layerBytes: number): WeighedImage {
  const { id, name, createdAt, schedule, verifiedAt } = record;
  return {
    ...{ id, name, createdAt, schedule, verifiedAt },
    isDefault: name === DEFAULT_IMAGE,
    isProtected: record.protected === 1,
    isReady: record.state === 'ready',
    ownBytes: memoryBytes(record) + layerBytes,
  };
}

function memoryBytes(record: ImageRecord): number {
  const { memoryFile, screen } = manifestOf(record);
  return memoryFile.storedBytes + (screen?.storedBytes ?? 0);
}
