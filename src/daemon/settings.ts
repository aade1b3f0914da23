/** The daemon's own settings: `stasis.yaml` in the directory for configuration, read once, strictly, at its start. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { closest } from 'fastest-levenshtein';
import Type, { type Static } from 'typebox';
import Value from 'typebox/value';
import { NAME_PATTERN, ROLES, type Role } from '../api/constants.ts';
import { Policy } from '../api/schemas.ts';
import { StasisError, errnoOf, messageOf } from '../errors.ts';
import { timetable, type CronTime } from '../timetable.ts';
import { parseYaml } from '../yaml.ts';

const strict = { additionalProperties: false } as const;

const Rate = Type.Union([Type.String(), Type.Integer({ minimum: 1 })]);

const Checksums = Type.Object(
  {
    afterSeconds: Type.Optional(Type.Number({ minimum: 0, maximum: 86_400 })),
    bytesPerSecond: Type.Optional(Rate),
  },
  strict,
);

const Scrub = Type.Object(
  {
    schedule: Type.Optional(Type.String({ minLength: 1, maxLength: 200 })),
    timeZone: Type.Optional(Type.String({ minLength: 1, maxLength: 100 })),
    bytesPerSecond: Type.Optional(Rate),
  },
  strict,
);

const QemuSetting = Type.Object(
  {
    builds: Type.Optional(
      Type.Record(Type.String({ pattern: NAME_PATTERN }), Type.String({ pattern: '^/' }), strict),
    ),
    user: Type.Optional(Type.Union([Type.String({ minLength: 1 }), Type.Integer({ minimum: 0 })])),
  },
  strict,
);

const AccessRight = {
  role: Type.Unsafe<Role>({ type: 'string', enum: [...ROLES] }),
  labels: Type.Optional(Type.Array(Type.String({ pattern: NAME_PATTERN }), { minItems: 1 })),
};
const AccessSetting = Type.Union([
  Type.Object({ user: Type.String(), ...AccessRight }, strict),
  Type.Object({ group: Type.String(), ...AccessRight }, strict),
]);
/** What a user of this host, or all of a group, may do; `labels`: with guests that have one of them. */
export type AccessSetting = Static<typeof AccessSetting>;

const SettingsFile = Type.Object(
  {
    disks: Type.Optional(
      Type.Object(
        {
          compactAboveDepth: Type.Optional(
            Type.Union([Type.Integer({ minimum: 2, maximum: 10_000 }), Type.Literal(false)]),
          ),
          compactAfterSeconds: Type.Optional(Type.Number({ minimum: 0, maximum: 86_400 })),
          compactBytesPerSecond: Type.Optional(Rate),
        },
        strict,
      ),
    ),
    policy: Type.Optional(Type.Partial(Policy, strict)),
    checksums: Type.Optional(Type.Union([Checksums, Type.Literal(false)])),
    scrub: Type.Optional(Type.Union([Scrub, Type.Literal(false)])),
    schedules: Type.Optional(
      Type.Object({ parallel: Type.Optional(Type.Integer({ minimum: 1, maximum: 64 })) }, strict),
    ),
    qemu: Type.Optional(QemuSetting),
    minFree: Type.Optional(Type.Union([Type.String(), Type.Integer({ minimum: 0 })])),
    access: Type.Optional(Type.Array(AccessSetting)),
  },
  strict,
);
type SettingsFile = Static<typeof SettingsFile>;

export interface Settings {
  readonly disks: {
    /** a chain of more layers is shortened in the background; null: never */
    readonly compactAboveDepth: number | null;
    /** when so long nothing was done to the guest */
    readonly compactAfterSeconds: number;
    readonly compactBytesPerSecond: number;
  };
  /** of guests with none of their own */
  readonly policy: Partial<Policy>;
  /** of what images hold, made in the background when so long nothing was done to the guest; null: only by `verify` */
  readonly checksums: { readonly afterSeconds: number; readonly bytesPerSecond: number } | null;
  /** when all images are verified; null: never by itself */
  readonly scrub: { readonly schedule: CronTime; readonly bytesPerSecond: number } | null;
  readonly schedules: {
    /** so many saves of schedules at once */
    readonly parallel: number;
  };
  readonly qemu: {
    /** programs beside the usual QEMU, by the names that definitions know them by */
    readonly builds: Readonly<Record<string, string>>;
    /** whom a daemon that is root lets QEMU run as, by name or number; null: not said */
    readonly user: string | null;
  };
  /** with less free space in the home the daemon says that it is not ready */
  readonly minFreeBytes: number;
  /** the first that fits a user of this host holds */
  readonly access: readonly AccessSetting[];
}

const FILE = 'stasis.yaml';
const MIB = 1024 ** 2;
const GIB = 1024 ** 3;

/**
 * @param directory for configuration; without the file all is as by default
 * @throws StasisError `invalid-request` naming file, key, what is wrong with it and the nearest known one
 */
export async function readSettings(directory: string): Promise<Settings> {
  const file = join(directory, FILE);
  try {
    return parseSettings(await readFile(file, 'utf8'), file);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return parseSettings('', file);
    throw error;
  }
}

/** @param file how the messages call it */
export function parseSettings(text: string, file: string): Settings {
  const settings = checked(parseYaml(text, file, 'invalid-request') ?? {}, file);
  const {
    disks = {},
    policy = {},
    schedules = {},
    checksums = {},
    scrub = {},
    minFree = GIB,
    access = [],
    qemu = {},
  } = settings;
  const { compactAboveDepth = 20, compactAfterSeconds = 60, compactBytesPerSecond = 50 * MIB } = disks;
  return {
    disks: {
      compactAboveDepth: compactAboveDepth === false ? null : compactAboveDepth,
      compactAfterSeconds,
      compactBytesPerSecond: parseSize(compactBytesPerSecond, `${file}: disks.compactBytesPerSecond`),
    },
    policy,
    checksums: checksums === false ? null : checksumSettings(checksums, file),
    scrub: scrub === false ? null : scrubSettings(scrub, file),
    schedules: { parallel: schedules.parallel ?? 2 },
    qemu: { builds: qemu.builds ?? {}, user: qemu.user === undefined ? null : String(qemu.user) },
    minFreeBytes: minFree === 0 ? 0 : parseSize(minFree, `${file}: minFree`),
    access,
  };
}

type Section<Key extends keyof SettingsFile> = Exclude<SettingsFile[Key], false | undefined>;

function checksumSettings(
  { afterSeconds = 30, bytesPerSecond = 200 * MIB }: Section<'checksums'>,
  file: string,
): Settings['checksums'] {
  return { afterSeconds, bytesPerSecond: parseSize(bytesPerSecond, `${file}: checksums.bytesPerSecond`) };
}

/** Sundays, in the night. */
function scrubSettings(
  { schedule: cron = '0 3 * * 0', timeZone, bytesPerSecond = 50 * MIB }: Section<'scrub'>,
  file: string,
): Settings['scrub'] {
  const schedule = { cron, timeZone: timeZone ?? null };
  try {
    timetable(schedule);
  } catch (error) {
    throw invalid(`${file}: scrub.schedule: ${messageOf(error)}`);
  }
  return { schedule, bytesPerSecond: parseSize(bytesPerSecond, `${file}: scrub.bytesPerSecond`) };
}

function checked(input: unknown, file: string): SettingsFile {
  if (Value.Check(SettingsFile, input)) return input;
  const errors = Value.Errors(SettingsFile, input).filter(({ keyword }) => keyword !== 'boolean');
  const misspelt = errors.find(({ keyword }) => keyword === 'additionalProperties');
  const where = (path: string) =>
    [file, ...(path === '' ? [] : [path.slice(1).replaceAll('/', '.')])].join(': ');
  if (misspelt?.keyword === 'additionalProperties') {
    const [unknown = ''] = misspelt.params.additionalProperties;
    const known = knownKeys(misspelt.instancePath);
    throw invalid(
      `${where(misspelt.instancePath)}: unknown key "${unknown}"; did you mean "${closest(unknown, known)}"? (known: ${known.join(', ')})`,
    );
  }
  const [error] = errors;
  throw invalid(`${where(error?.instancePath ?? '')}: ${error?.message ?? 'it does not fit the schema'}`);
}

/** @param path of the part of the file, such as `/disks` */
function knownKeys(path: string): string[] {
  const { disks, policy, schedules } = SettingsFile.properties;
  const sections = {
    '/disks': disks,
    '/policy': policy,
    '/schedules': schedules,
    '/checksums': Checksums,
    '/scrub': Scrub,
    '/qemu': QemuSetting,
  };
  const section = Object.entries(sections).find(([name]) => name === path)?.[1] ?? SettingsFile;
  return Object.keys(section.properties);
}

const SIZE = /^(\d+(?:\.\d+)?)\s*(?:([KMGT])i?)?B?$/i;
const UNITS = ['', 'K', 'M', 'G', 'T'];

/** Binary whatever the unit's spelling, as a guest's memory is: `50MiB`, `50M`; a plain number is bytes. */
function parseSize(size: string | number, what: string): number {
  const [, amount = '', unit = ''] = SIZE.exec(String(size).trim()) ?? [];
  const bytes = Math.floor(Number(amount) * 1024 ** UNITS.indexOf(unit.toUpperCase()));
  if (amount !== '' && bytes > 0 && Number.isSafeInteger(bytes)) return bytes;
  throw invalid(`${what}: "${size}" is not a size; write it like 50MiB`);
}

function invalid(message: string): StasisError {
  return new StasisError('invalid-request', message);
}
