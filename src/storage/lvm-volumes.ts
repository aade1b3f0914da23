/**
 * LVM's own commands, typed: what there is (`lvs` with JSON reports, lvmreport(7)), and the few changes that a storage
 * driver makes (lvcreate(8), lvmthin(7)). Sizes are in bytes.
 */
import Type, { type Static } from 'typebox';
import { StasisError } from '../errors.ts';
import { failureOf, readReport, runTool } from './tool.ts';

/** A volume by its names. */
export interface VolumeName {
  readonly group: string;
  readonly name: string;
}

export interface Volume extends VolumeName {
  readonly uuid: string;
  readonly sizeBytes: number;
  /** `thin`: of a pool; `snapshot`: a classic one, with an area of its own for what its origin changes; `plain`: what such a snapshot can be made of */
  readonly kind: 'thin' | 'pool' | 'snapshot' | 'plain' | 'other';
  /** the pool of a thin volume */
  readonly pool: string | null;
  readonly origin: string | null;
  /** what is taken of a pool, a thin volume, or a classic snapshot's area, 0 … 1; null while it isn't active */
  readonly used: number | null;
  /** of a pool: what is taken of its metadata, 0 … 1, and how large that is */
  readonly metadataUsed: number | null;
  readonly metadataBytes: number;
  /** a classic snapshot whose area overflowed: its content is gone */
  readonly isLost: boolean;
  readonly isWritable: boolean;
  readonly tags: readonly string[];
  /** not yet given to any volume of the group */
  readonly groupFreeBytes: number;
}

const Text = Type.String();
const Bytes = Type.String({ pattern: '^[0-9]+$' });
/** Empty for what has none. */
const MaybeBytes = Type.String({ pattern: '^[0-9]*$' });
const Percent = Type.String({ pattern: '^([0-9]+([.][0-9]+)?)?$' });

/** The columns that are asked for, as lvmreport(7) documents them. */
const Row = Type.Object({
  ...{ vg_name: Text, lv_name: Text, lv_uuid: Text, lv_size: Bytes, segtype: Text, lv_attr: Text },
  ...{ pool_lv: Text, origin: Text, lv_tags: Text, data_percent: Percent, metadata_percent: Percent },
  ...{ lv_metadata_size: MaybeBytes, lv_snapshot_invalid: Text, vg_free: Bytes },
});
type Row = Static<typeof Row>;
const Report = Type.Object({ report: Type.Array(Type.Object({ lv: Type.Array(Row) })) });

const REPORT = [
  '--reportformat',
  'json',
  '--units',
  'b',
  '--nosuffix',
  '--options',
  Object.keys(Row.properties).join(','),
] as const;

/** All visible volumes of a group; none when there is no such group. @throws StasisError `storage-failed` */
export async function listVolumes(group: string): Promise<Volume[]> {
  try {
    return readVolumes(await runTool('lvs', [...REPORT, group]));
  } catch (error) {
    if (isMissing(error)) return [];
    throw error;
  }
}

/** @param report of `lvs`. @throws StasisError `storage-failed` */
export function readVolumes(report: string): Volume[] {
  const { report: parts } = readReport('lvs', Report, report);
  return parts.flatMap(({ lv }) => lv).map(volumeOf);
}

export async function findVolume({ group, name }: VolumeName): Promise<Volume | undefined> {
  return (await listVolumes(group)).find((volume) => volume.name === name);
}

function volumeOf(row: Row): Volume {
  return {
    group: row.vg_name,
    name: row.lv_name,
    uuid: row.lv_uuid,
    sizeBytes: Number(row.lv_size),
    kind: kindOf(row),
    pool: row.pool_lv || null,
    origin: row.origin || null,
    used: fraction(row.data_percent),
    metadataUsed: fraction(row.metadata_percent),
    metadataBytes: Number(row.lv_metadata_size),
    isLost: row.lv_snapshot_invalid === 'snapshot invalid',
    isWritable: row.lv_attr.charAt(1) === 'w',
    tags: row.lv_tags.split(',').filter((tag) => tag !== ''),
    groupFreeBytes: Number(row.vg_free),
  };
}

/** The first letter of the attributes tells a classic snapshot, also one that is being merged; see lvs(8). */
function kindOf({ segtype, lv_attr: attributes }: Row): Volume['kind'] {
  if (segtype === 'thin') return 'thin';
  if (segtype === 'thin-pool') return 'pool';
  if (/^s/i.test(attributes)) return 'snapshot';
  return /^(linear|striped|mirror|raid)/.test(segtype) ? 'plain' : 'other';
}

function fraction(percent: string): number | null {
  return percent === '' ? null : Number(percent) / 100;
}

/** A snapshot of a thin volume: shares all blocks with it, and costs nothing to make. */
export interface ThinSnapshot {
  readonly of: VolumeName;
  readonly name: string;
  readonly tags: readonly string[];
  /**
   * `image`: read-only and not activated, so that nothing waits for its device: that is what a pause has time for.
   * `head`: writable, and there when this returns.
   */
  readonly as: 'image' | 'head';
}

/** @throws StasisError `no-space`, `storage-failed`; `isTaken` tells of a name that is there already */
export async function createThinSnapshot(snapshot: ThinSnapshot, signal?: AbortSignal): Promise<void> {
  // -k: to be skipped or not when volumes are activated. The backup of the group's metadata is written by the next change.
  const how = snapshot.as === 'image' ? ['-pr', '-ky', '--noudevsync', '-An'] : ['-prw', '-kn', '-ay'];
  await create(['-s', ...how], snapshot, signal);
}

/** A classic snapshot, which keeps what its origin changes in an area of its own, until that is full. Read-only. */
export async function createSnapshot(
  snapshot: Omit<ThinSnapshot, 'as'> & { readonly areaBytes: number },
  signal?: AbortSignal,
): Promise<void> {
  await create(['-s', '-pr', '-L', `${snapshot.areaBytes}b`], snapshot, signal);
}

async function create(
  how: readonly string[],
  { of, name, tags }: Omit<ThinSnapshot, 'as'>,
  signal?: AbortSignal,
): Promise<void> {
  const named = ['-n', name, ...tags.flatMap((tag) => ['--addtag', tag])];
  await runTool('lvcreate', ['-y', '-qq', ...how, ...named, path(of)], signal);
}

/** Removes a volume that nobody has open. Nothing there is no error. */
export async function removeVolume(volume: VolumeName): Promise<void> {
  try {
    await runTool('lvremove', ['-y', '-qq', path(volume)]);
  } catch (error) {
    if (!isMissing(error)) throw error;
  }
}

/** From now on it is activated like any other, at each start of the host too. */
export async function activate(volume: VolumeName): Promise<void> {
  await runTool('lvchange', ['-qq', '-kn', path(volume)]);
  await runTool('lvchange', ['-qq', '-ay', path(volume)]);
}

export async function makeWritable(volume: VolumeName): Promise<void> {
  await runTool('lvchange', ['-qq', '-prw', path(volume)]);
}

export async function addTags(volume: VolumeName, tags: readonly string[]): Promise<void> {
  if (tags.length === 0) return;
  await runTool('lvchange', ['-qq', ...tags.flatMap((tag) => ['--addtag', tag]), path(volume)]);
}

export async function removeTag(volume: VolumeName, tag: string): Promise<void> {
  await runTool('lvchange', ['-qq', '--deltag', tag, path(volume)]);
}

export async function renameVolume(volume: VolumeName, name: string): Promise<void> {
  await runTool('lvrename', ['-qq', volume.group, volume.name, name]);
}

/** The origin of a classic snapshot becomes what the snapshot is, which then is gone. Nobody has either open. Returns when all is copied. */
export async function mergeSnapshot(snapshot: VolumeName): Promise<void> {
  await runTool('lvconvert', ['-y', '-qq', '-i', '1', '--merge', path(snapshot)]);
}

function path({ group, name }: VolumeName): string {
  return `${group}/${name}`;
}

function isMissing(error: unknown): boolean {
  return /Failed to find logical volume|Volume group ".*" not found/.test(failureOf(error) ?? '');
}

/** Is this the error of a name that another volume has? */
export function isTaken(error: unknown): boolean {
  return /already exists/.test(failureOf(error) ?? '');
}

/**
 * The volume that a path names: `/dev/GROUP/NAME`, or `/dev/mapper/GROUP-NAME`, in which a hyphen of a name is doubled.
 * Any other path, a link to one of these or `/dev/dm-7`, says nothing that lasts.
 */
export function volumeAt(file: string): VolumeName | undefined {
  const mapped = /^\/dev\/mapper\/((?:[^-/]|--)+)-((?:[^-/]|--)+)$/.exec(file);
  const plain = /^\/dev\/(?!mapper\/)([^/]+)\/([^/]+)$/.exec(file);
  const [, group, name] = mapped?.map((part) => part.replaceAll('--', '-')) ?? plain ?? [];
  return group === undefined || name === undefined ? undefined : { group, name };
}

/** The path of a volume's device. */
export function deviceOf({ group, name }: VolumeName): string {
  return `/dev/${group}/${name}`;
}

/** @throws StasisError `internal`: only what `volumeAt` understands becomes a layer */
export function requireVolumeName(file: string): VolumeName {
  const name = volumeAt(file);
  if (name === undefined) throw new StasisError('internal', `${file} names no logical volume`);
  return name;
}
