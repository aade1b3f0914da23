/**
 * Images whose disks lost their content without anybody's doing: a classic LVM snapshot that overflowed. They are broken
 * from then on, which their guest's list and an event tell, and are never restored.
 */
import { setInterval } from 'node:timers/promises';
import { DRIVER_NAMES } from '../api/constants.ts';
import { getGuestByUuid } from '../catalog/guests.ts';
import { getImageById, updateImage } from '../catalog/images.ts';
import { layersOfImages } from '../catalog/layers.ts';
import { messageOf } from '../errors.ts';
import type { Host } from '../guests/host.ts';
import { markUnsound } from './verification.ts';

/** Nothing announces it, short of LVM's own daemon. */
const LOOK_EVERY_MS = 60_000;

/** Looks for such images, and marks them. */
export async function markLost(host: Host): Promise<void> {
  for (const driver of DRIVER_NAMES) {
    const layers = host.drivers.has(driver) ? await layersOfImages(host.catalog, driver) : [];
    if (layers.length === 0) continue;
    const lost = new Set(await host.drivers.get(driver).lost?.(layers));
    const images = new Set(layers.filter(({ id }) => lost.has(id)).map(({ image }) => image));
    for (const image of images) await markBroken(host, image);
  }
}

async function markBroken(host: Host, id: string): Promise<void> {
  const image = await getImageById(host.catalog, id);
  const { name: guest } = await getGuestByUuid(host.catalog, image.guest);
  await updateImage(host.catalog, id, { state: 'broken' });
  await markUnsound(host.catalog, image, 'a snapshot of a disk overflowed');
  await host.events.publish({
    type: 'image',
    action: 'broken',
    guest,
    image: image.name,
    message: `image ${image.name} of ${guest} is broken: a snapshot of a disk overflowed. Delete it; a larger snapshotSize makes that less likely`,
  });
}

/** Looks again and again, until disposed of. */
export function watchLost(host: Host): AsyncDisposable {
  const stop = new AbortController();
  const watching = watch(host, stop.signal);
  return {
    async [Symbol.asyncDispose]() {
      stop.abort();
      await watching;
    },
  };
}

async function watch(host: Host, signal: AbortSignal): Promise<void> {
  try {
    for await (const _ of setInterval(LOOK_EVERY_MS, undefined, { signal })) await lookOnce(host);
  } catch (error) {
    if (!signal.aborted) throw error;
  }
}

/** The same, where nothing may fail for it. */
export async function lookOnce(host: Host): Promise<void> {
  try {
    await markLost(host);
  } catch (error) {
    host.log.warn({ error: messageOf(error) }, 'the disks of images could not be looked at');
  }
}
