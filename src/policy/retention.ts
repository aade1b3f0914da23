/**
 * Which images of a guest stay. Pure: (images, rules, time zone) → what stays and why, what goes and why.
 *
 * The rules count as restic's do (`restic forget --keep-*`, chapter "Removing snapshots according to a policy"): from the newest image
 * on, of each hour, day, ISO week, month or year that has one the newest is kept, until so many are; hours without an
 * image count nothing. While a rule has some left the oldest image is kept as well, so that history becomes as long as it can.
 * "Within" is meant from the newest image, not from now: nothing is lost because nothing was saved for a while.
 *
 * They are for images that schedules made, or for all (`all`). Whatever they say these stay: the default image, protected and
 * broken ones, and the newest image that verified, or if none ever did the newest that is ready.
 */
import type { Retention } from '../api/schedules.ts';
import type { WeighedImage } from '../images/usage.ts';

export interface Verdict<Image> {
  readonly image: Image;
  readonly keep: boolean;
  readonly reasons: readonly string[];
}

/** An image that is about to be made. */
export interface Newcomer {
  readonly images: number;
  readonly bytes: number;
}

export interface Judgement<Image> {
  /** newest first */
  readonly verdicts: readonly Verdict<Image>[];
  /** what is left after it; ≤ the quotas, unless `excess` says by how much not */
  readonly usedBytes: number;
  readonly excess: { readonly bytes: number; readonly images: number } | null;
}

/**
 * @param usedBytes what all images of the guest occupy now
 * @param newcomer what the quotas must have room for
 */
export function judge<Image extends WeighedImage>(
  images: readonly Image[],
  rules: Retention,
  usedBytes: number,
  newcomer: Newcomer = { images: 0, bytes: 0 },
): Judgement<Image> {
  const newestFirst = images.toSorted((a, b) => b.createdAt.localeCompare(a.createdAt));
  const kept = keptByRules(newestFirst, rules);
  const verdicts = newestFirst.map((image): Verdict<Image> => {
    const reasons = [...untouchable(image, newestFirst, rules), ...(kept.get(image) ?? [])];
    if (reasons.length > 0) return { image, keep: true, reasons };
    return hasRules(rules)
      ? { image, keep: false, reasons: ['no rule keeps it'] }
      : { image, keep: true, reasons: [] };
  });
  return holdQuotas(verdicts, rules, usedBytes, newcomer);
}

/** Those that stay for want of a rule give way to a quota, the oldest first; never the newest. */
function holdQuotas<Image extends WeighedImage>(
  verdicts: readonly Verdict<Image>[],
  { quotaBytes, quotaImages }: Retention,
  usedBytes: number,
  newcomer: Newcomer,
): Judgement<Image> {
  const held = [...verdicts];
  const newest = verdicts.find(({ image }) => image.isReady);
  const over = () => {
    const gone = held.filter(({ keep }) => !keep);
    const bytes = gone.reduce((sum, { image }) => sum - image.ownBytes, usedBytes);
    return {
      usedBytes: bytes,
      bytes: Math.max(0, bytes + newcomer.bytes - (quotaBytes ?? Infinity)),
      images: Math.max(0, held.length - gone.length + newcomer.images - (quotaImages ?? Infinity)),
    };
  };
  for (let index = held.length - 1; index >= 0; index -= 1) {
    const verdict = held[index];
    const { bytes, images } = over();
    if (bytes === 0 && images === 0) break;
    if (verdict === undefined || verdict === newest || !verdict.keep || verdict.reasons.length > 0) continue;
    held[index] = { ...verdict, keep: false, reasons: ['the quota'] };
  }
  const { bytes, images, usedBytes: left } = over();
  return {
    verdicts: held.map((verdict) =>
      verdict.reasons.length > 0 ? verdict : { ...verdict, reasons: ['there is no rule'] },
    ),
    usedBytes: left,
    excess: bytes === 0 && images === 0 ? null : { bytes, images },
  };
}

function hasRules(rules: Retention): boolean {
  return rules.keepWithinSeconds > 0 || PERIODS.some(({ rule }) => rules[rule] > 0);
}

/** Why an image stays whatever the rules say. */
function untouchable(
  image: WeighedImage,
  newestFirst: readonly WeighedImage[],
  { all }: Retention,
): string[] {
  const reasons: string[] = [];
  if (image.isDefault) reasons.push('the default image');
  else if (image.schedule === null && !all) reasons.push('made by hand');
  if (image.isProtected) reasons.push('protected');
  if (!image.isReady) reasons.push('broken: look at it and delete it yourself');
  const ready = newestFirst.filter(({ isReady }) => isReady);
  const verified = ready.find(({ verifiedAt }) => verifiedAt !== null);
  if (verified === image) reasons.push('the newest that verified');
  else if (verified === undefined && ready[0] === image) reasons.push('the newest, and none was verified');
  return reasons;
}

type Rule = 'keepLast' | 'keepHourly' | 'keepDaily' | 'keepWeekly' | 'keepMonthly' | 'keepYearly';

interface Period {
  readonly rule: Rule;
  readonly word: string;
  /** what the images of one period have in common */
  readonly of: (fields: LocalTime, index: number) => string;
}

const PERIODS: readonly Period[] = [
  { rule: 'keepLast', word: 'last', of: (_, index) => String(index) },
  { rule: 'keepHourly', word: 'hourly', of: ({ day, hour }) => `${day} ${hour}` },
  { rule: 'keepDaily', word: 'daily', of: ({ day }) => day },
  { rule: 'keepWeekly', word: 'weekly', of: ({ day }) => isoWeek(day) },
  { rule: 'keepMonthly', word: 'monthly', of: ({ day }) => day.slice(0, 7) },
  { rule: 'keepYearly', word: 'yearly', of: ({ day }) => day.slice(0, 4) },
];

function keptByRules<Image extends WeighedImage>(
  newestFirst: readonly Image[],
  rules: Retention,
): Map<Image, string[]> {
  const ruled = newestFirst.filter(
    ({ schedule, isDefault, isReady }) => isReady && !isDefault && (rules.all || schedule !== null),
  );
  const kept = new Map<Image, string[]>(ruled.map((image) => [image, []]));
  const newestMs = Date.parse(ruled[0]?.createdAt ?? '');
  const localTime = localTimeIn(rules.timeZone);
  for (const image of ruled)
    if (newestMs - Date.parse(image.createdAt) < rules.keepWithinSeconds * 1000)
      kept.get(image)?.push('within');
  for (const { rule, word, of } of PERIODS) {
    let left = rules[rule];
    let before: string | undefined;
    for (const [index, image] of ruled.entries()) {
      if (left === 0) break;
      const period = of(localTime(image.createdAt), index);
      const isOldest = index === ruled.length - 1;
      if (period === before && !isOldest) continue;
      kept.get(image)?.push(period === before ? `oldest ${word}` : word);
      before = period;
      left -= 1;
    }
  }
  return kept;
}

interface LocalTime {
  /** `2026-11-24` */
  readonly day: string;
  readonly hour: string;
}

function localTimeIn(timeZone: string | null): (isoDate: string) => LocalTime {
  // Swedish dates are ISO's.
  const format = new Intl.DateTimeFormat('sv-SE', {
    ...{ year: 'numeric', month: '2-digit', day: '2-digit', hour: '2-digit', hourCycle: 'h23' },
    ...(timeZone === null ? {} : { timeZone }),
  });
  return (isoDate) => {
    const [day = '', hour = ''] = format.format(Date.parse(isoDate)).split(' ');
    return { day, hour };
  };
}

const DAY_MS = 86_400_000;

/** `2026-W48`: the week of a day is that of its Thursday (ISO 8601). */
function isoWeek(day: string): string {
  const date = new Date(`${day}T00:00:00Z`);
  const weekday = (date.getUTCDay() + 6) % 7;
  const thursday = new Date(date.getTime() + (3 - weekday) * DAY_MS);
  const year = thursday.getUTCFullYear();
  const week = 1 + Math.floor((thursday.getTime() - Date.UTC(year, 0, 1)) / (7 * DAY_MS));
  return `${year}-W${String(week).padStart(2, '0')}`;
}
