/** Quantities as people read them. Three digits are enough to compare two images by. */

const BYTE_UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB'] as const;

/** `0 B`, `312 MiB`, `1.0 GiB` */
export function formatBytes(bytes: number): string {
  let value = bytes;
  let unit = 0;
  // 1023.5 would be shown as 1024 of a unit whose next one exists
  while (value >= 1023.5 && unit < BYTE_UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${threeDigits(value, unit > 0)} ${BYTE_UNITS[unit]}`;
}

/** What deleting an image would free: `312 MiB`, or `8.0 MiB–1.2 GiB` when that isn't known better; a fiftieth is no matter. */
export function formatGain(image: {
  readonly freesBytes: number;
  readonly freesAtMostBytes: number;
}): string {
  const least = formatBytes(image.freesBytes);
  return image.freesAtMostBytes <= image.freesBytes * 1.02
    ? least
    : `${least}–${formatBytes(image.freesAtMostBytes)}`;
}

/** `0.4 ms`, `13 ms`, `1.4 s`, `2 min 05 s`, `3 h 07 min` */
export function formatDuration(durationMs: number): string {
  if (durationMs < 999.5) return `${threeDigits(durationMs, !Number.isInteger(durationMs))} ms`;
  if (durationMs < 59_950) return `${threeDigits(durationMs / 1000, true)} s`;
  const seconds = Math.round(durationMs / 1000);
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${twoDigits(seconds % 60)} s`;
  const minutes = Math.round(seconds / 60);
  return `${Math.floor(minutes / 60)} h ${twoDigits(minutes % 60)} min`;
}

/** How long ago an ISO date was: `now`, `12 s ago`, `5 min ago`, `3 h ago`, `12 d ago`, else the date. */
export function formatAge(isoDate: string, nowMs: number = Date.now()): string {
  const seconds = Math.floor((nowMs - Date.parse(isoDate)) / 1000);
  if (Number.isNaN(seconds)) return isoDate;
  if (seconds < 1) return 'now'; // also when the clocks of two hosts differ a little
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 2 * 86_400) return `${Math.floor(seconds / 3600)} h ago`;
  if (seconds < 60 * 86_400) return `${Math.floor(seconds / 86_400)} d ago`;
  return isoDate.slice(0, 10);
}

/** An ISO date in the reader's time zone: `2026-03-01 14:05:09`. */
export function formatDate(isoDate: string): string {
  const date = new Date(isoDate);
  if (Number.isNaN(date.getTime())) return isoDate;
  const day = [date.getFullYear(), twoDigits(date.getMonth() + 1), twoDigits(date.getDate())].join('-');
  return `${day} ${formatTime(date)}`;
}

function formatTime(date: Date): string {
  return [date.getHours(), date.getMinutes(), date.getSeconds()].map(twoDigits).join(':');
}

/** `1 disk`, `2 disks` */
export function count(number: number, noun: string): string {
  return `${number} ${noun}${number === 1 ? '' : 's'}`;
}

function threeDigits(value: number, fraction: boolean): string {
  return value.toFixed(fraction && value < 99.95 ? 1 : 0);
}

function twoDigits(value: number): string {
  return String(value).padStart(2, '0');
}

/** Who it was, in a word or two. @param caller null: the daemon itself */
export function describeCaller(
  caller: {
    readonly via: string;
    readonly uid: number | null;
    readonly user: string | null;
    readonly session: string | null;
    readonly address?: string | null;
    readonly credential?: string | null;
  } | null,
): string {
  if (caller === null) return 'the daemon';
  const page = caller.session === null ? '' : `, page ${caller.session}`;
  if (caller.via === 'https')
    return `${caller.credential ?? 'nobody known'}${page}, from ${caller.address ?? 'elsewhere'}`;
  const who = caller.user ?? (caller.uid === null ? 'unknown' : `uid ${caller.uid}`);
  return `${who}${page}`;
}
