/** What is said of an image in more than one place. */
import type { Image } from '../api/schemas.ts';
import { formatDate, formatDuration } from '../units.ts';

/** `live, 13 ms pause` */
export function mannerOf({ live, pauseMs, guestWasPaused }: Image): string {
  if (!live) return 'stopped for it';
  if (guestWasPaused) return 'stood still';
  return pauseMs === null ? 'live' : `${formatDuration(pauseMs)} pause`;
}

/** `24 Nov 2026, 03:00; restored fine on 22 Nov 2026, 03:10` */
export function soundnessOf({ verifiedAt, verified, damage }: Image): string {
  if (damage !== null) return damage;
  if (verifiedAt === null) return 'not yet';
  const boot = verified.bootAt === null ? '' : `; restored fine on ${formatDate(verified.bootAt)}`;
  return formatDate(verifiedAt) + boot;
}
