/** Which images of a guest stay, as its user wrote it. */
import Type, { type Static } from 'typebox';
import { Retention, type RetentionChange } from '../api/schedules.ts';
import { fromStored } from '../stored.ts';
import { parseSize } from './definition/memory.ts';
import { strict } from './definition/schema.ts';

/** Nothing is ever removed. */
export const NO_RULES: Retention = {
  keepLast: 0,
  keepHourly: 0,
  keepDaily: 0,
  keepWeekly: 0,
  keepMonthly: 0,
  keepYearly: 0,
  keepWithinSeconds: 0,
  all: false,
  quotaBytes: null,
  quotaImages: null,
  timeZone: null,
};

/** In a definition the quota is a size as its memory is: `200GiB`. */
export const RetentionInput = Type.Partial(
  Type.Object({
    ...Type.Omit(Retention, ['quotaBytes']).properties,
    quota: Type.Union([Type.String(), Type.Integer()]),
  }),
  strict,
);

/** @throws StasisError `invalid-definition` */
export function readRetention({ quota, ...rules }: Static<typeof RetentionInput>): Retention {
  return { ...NO_RULES, ...rules, quotaBytes: quota === undefined ? null : parseSize('quota', quota) };
}

export function storedRetention(rules: string | undefined): Retention {
  return rules === undefined ? NO_RULES : { ...NO_RULES, ...fromStored<RetentionChange>(rules) };
}

/** What is wrong with it, as the end of a sentence; undefined: nothing. */
export function whyNotRetention({ timeZone }: Retention): string | undefined {
  if (timeZone === null) return undefined;
  try {
    Intl.DateTimeFormat('en', { timeZone });
    return undefined;
  } catch {
    return `there is no time zone "${timeZone}"`;
  }
}
