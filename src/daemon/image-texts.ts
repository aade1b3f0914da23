/**
 * Images of a guest as JSON, remembered until something of them changes. An image hardly ever does, and to make what is told of
 * ten thousand of them takes most of a second: the manifest is parsed, what deleting it would free is found out, and written again.
 */
import { guestsByUuid } from '../catalog/guests.ts';
import { listImages } from '../catalog/images.ts';
import { rootsOfGuest } from '../catalog/layers.ts';
import { untilGuestWritten, type Reading } from '../catalog/until-written.ts';
import { guestDirectory } from '../guests/disks.ts';
import type { Host } from '../guests/host.ts';
import { imageViews } from './views.ts';

/** By the images' ids, the oldest first. */
export type ImageTexts = ReadonlyMap<string, string>;

const NONE: ImageTexts = new Map();

/** Of all images of a guest. @param guest its UUID */
export async function imageTexts(host: Host, guest: string): Promise<ImageTexts> {
  const layers = [...(await host.readers.layers())].toSorted().join();
  return (await textsOf({ ...host, readLayers: layers }, [guest])).get(guest) ?? NONE;
}

/** A list of them. */
export function listText(texts: ImageTexts): string {
  return `[${[...texts.values()].join()}]`;
}

/** What would be freed depends on what is read, and on whose memory is mapped from an image. */
const textsOf = untilGuestWritten(
  readTexts,
  ({ paths, supervisor, readLayers }: Host & { readonly readLayers: string }, guest) => {
    const { images } = guestDirectory(paths.data, guest);
    return [readLayers, ...supervisor.mappedFiles().filter((file) => file.startsWith(images))].join();
  },
);

async function readTexts(host: Host, uuids: readonly string[]): Promise<Map<string, Reading<ImageTexts>>> {
  const found = new Map<string, Reading<ImageTexts>>();
  for (const guest of await guestsByUuid(host.catalog, uuids)) {
    const records = await listImages(host.catalog, guest.uuid);
    const also = await rootsOfGuest(host.catalog, guest.uuid);
    const views = await imageViews(host, [guest], records);
    const texts = records.map(({ id }, index) => [id, JSON.stringify(views[index])] as const);
    const bytes = texts.reduce((sum, [, text]) => sum + text.length, 0);
    found.set(guest.uuid, { value: new Map(texts), also, bytes });
  }
  return found;
}
