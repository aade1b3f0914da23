/** Schedules and retention on the wire; see schemas.ts. */
import Type, { type Static } from 'typebox';
import { MISSED, NAME_PATTERN } from './constants.ts';

const strict = { additionalProperties: false } as const;
const Nullable = <T extends Type.TSchema>(schema: T, description?: string) =>
  Type.Union([schema, Type.Null()], description === undefined ? {} : { description });
const Literals = <const T extends readonly string[]>(...values: T) =>
  Type.Unsafe<T[number]>({ type: 'string', enum: [...values] });

/** What can be said of a schedule besides its name. */
const parts = {
  cron: Type.String({
    minLength: 1,
    maxLength: 200,
    description:
      'five fields (minute, hour, day, month, weekday), six with seconds before them, or @daily and the like',
  }),
  timeZone: Nullable(Type.String({ minLength: 1, maxLength: 100 }), "IANA name; null: the host's"),
  jitterSeconds: Type.Integer({
    minimum: 0,
    maximum: 86_400,
    description: 'each run begins up to so much later, always the same for the same guest, schedule and time',
  }),
  quiesce: Type.Union([Type.Boolean(), Type.Literal('require')]),
  missed: Type.Unsafe<(typeof MISSED)[number]>({
    type: 'string',
    enum: [...MISSED],
    description: 'when it was due while no daemon ran: one run soon after, or none',
  }),
  image: Nullable(
    Type.String({ maxLength: 100 }),
    "pattern of the images' names with %Y %m %d %H %M %S; null: NAME-%Y-%m-%dT%H%M",
  ),
  paused: Type.Boolean(),
};

export const ScheduleChange = Type.Partial(Type.Object(parts), strict);
/** What of a schedule is changed; the rest stays. */
export type ScheduleChange = Static<typeof ScheduleChange>;

export const ScheduleRequest = Type.Object(
  {
    name: Type.String({ pattern: NAME_PATTERN }),
    cron: parts.cron,
    ...Type.Partial(Type.Omit(Type.Object(parts), ['cron'])).properties,
  },
  strict,
);
export type ScheduleRequest = Static<typeof ScheduleRequest>;

const ScheduleRun = Type.Object({
  dueAt: Type.String(),
  state: Literals('waiting', 'done', 'skipped', 'failed'),
  endedAt: Nullable(Type.String()),
  image: Nullable(Type.String()),
  operation: Nullable(Type.String({ description: 'the save' })),
  message: Type.String(),
});

export const Schedule = Type.Object(
  {
    name: Type.String(),
    ...parts,
    createdAt: Type.String(),
    nextRunAt: Nullable(
      Type.String(),
      'when it next begins, jitter included; null when it is paused or never',
    ),
    lastRun: Nullable(ScheduleRun),
  },
  { $id: 'Schedule', description: 'when a guest is saved by itself' },
);
export type Schedule = Static<typeof Schedule>;

const Keep = (what: string) =>
  Type.Integer({ minimum: 0, maximum: 100_000, description: `${what}; 0: no such rule` });

export const Retention = Type.Object(
  {
    keepLast: Keep('so many of the newest'),
    keepHourly: Keep('the newest of each of so many hours that have one'),
    keepDaily: Keep('of so many days'),
    keepWeekly: Keep('of so many weeks (ISO)'),
    keepMonthly: Keep('of so many months'),
    keepYearly: Keep('of so many years'),
    keepWithinSeconds: Type.Integer({
      minimum: 0,
      maximum: 10_000_000_000,
      description: 'all that are not older than the newest one by more; 0: no such rule',
    }),
    all: Type.Boolean({ description: 'the rules hold for images made by hand too' }),
    quotaBytes: Nullable(
      Type.Integer({ minimum: 1, description: 'what all images of the guest may occupy together' }),
    ),
    quotaImages: Nullable(Type.Integer({ minimum: 1, description: 'how many images the guest may have' })),
    timeZone: Nullable(
      Type.String({ minLength: 1, maxLength: 100 }),
      "of hours, days, weeks…; null: the host's",
    ),
  },
  { $id: 'Retention', description: 'which images of a guest stay', ...strict },
);
export type Retention = Static<typeof Retention>;

export const RetentionChange = Type.Partial(Retention, strict);
/** What of a guest's rules of retention is changed; the rest stays. */
export type RetentionChange = Static<typeof RetentionChange>;

export const RetentionPlan = Type.Object(
  {
    guest: Type.String(),
    rules: Type.Unsafe<Retention>({ $ref: 'Retention#' }),
    usedBytes: Type.Integer({ description: 'by all images of the guest' }),
    images: Type.Array(
      Type.Object({
        name: Type.String(),
        createdAt: Type.String(),
        schedule: Nullable(Type.String()),
        keep: Type.Boolean(),
        reasons: Type.Array(Type.String(), { description: 'why it stays, or goes' }),
        storedBytes: Type.Integer(),
        freesBytes: Type.Integer({ description: 'by deleting it alone, for certain' }),
        freesAtMostBytes: Type.Integer(),
      }),
      { description: 'newest first' },
    ),
    freesBytes: Type.Integer({ description: 'by all that go' }),
    freesAtMostBytes: Type.Integer(),
    warning: Nullable(Type.String({ description: 'why the quota is not held all the same' })),
  },
  { $id: 'RetentionPlan', description: 'what the rules would do now' },
);
export type RetentionPlan = Static<typeof RetentionPlan>;
