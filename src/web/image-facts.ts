/** What is said of an image in more than one place. */
import type { Image } from '../api/schemas.ts';
import { formatDuration } from '../units.ts';

/** `live, 13 ms pause` */
export function mannerOf({ live, pauseMs, guestWasPaused }: Image): string {
  if (!live) return 'stopped for it';
  if (guestWasPaused) return 'stood still';
  return pauseMs === null ? 'live' : `${formatDuration(pauseMs)} pause`;
}
