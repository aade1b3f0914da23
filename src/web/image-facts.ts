/** What is said of an image in more than one place. */
import type { Image } from '../api/schemas.ts';
import { formatDuration } from '../units.ts';

/** What deleting it would free; undefined while the daemon doesn't say. */
export function freedBytes(image: Image): number | undefined {
  return 'freesBytes' in image && typeof image.freesBytes === 'number' ? image.freesBytes : undefined;
}

/** `live, 13 ms pause` */
export function mannerOf({ live, pauseMs, guestWasPaused }: Image): string {
  if (!live) return 'stopped for it';
  if (guestWasPaused) return 'stood still';
  return pauseMs === null ? 'live' : `${formatDuration(pauseMs)} pause`;
}
