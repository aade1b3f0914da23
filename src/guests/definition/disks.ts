/** A guest's disks and media. */
import { resolve } from 'node:path';
import Type, { type Static } from 'typebox';
import { invalid, OneOf, strict } from './schema.ts';

/** Slots of the root bus are set aside for so many, so that addresses never move. */
const MAX_VIRTIO_DISKS = 14;
const MAX_SATA_DISKS = 6;

export const DiskInput = Type.Object(
  {
    name: Type.String({ pattern: '^[A-Za-z0-9][A-Za-z0-9_-]{0,14}$' }),
    path: Type.String({ minLength: 1 }),
    format: OneOf('qcow2', 'raw', 'vmdk', 'vdi', 'vhdx', 'vpc', 'qed'),
    bus: Type.Optional(OneOf('virtio', 'sata', 'scsi', 'ide')),
    readonly: Type.Optional(Type.Boolean()),
  },
  strict,
);
type DiskInput = Static<typeof DiskInput>;

export interface DiskDefinition {
  readonly name: string;
  readonly path: string;
  readonly format: DiskInput['format'];
  readonly bus: 'virtio' | 'sata' | 'scsi' | 'ide';
  readonly readonly: boolean;
}

/** @param directory what relative paths are relative to */
export function pinDisk(disk: DiskInput, directory: string): DiskDefinition {
  return {
    name: disk.name,
    path: resolve(directory, disk.path),
    format: disk.format,
    bus: disk.bus ?? 'virtio',
    readonly: disk.readonly ?? false,
  };
}

/** What one disk can't say alone. @throws StasisError `invalid-definition` */
export function checkDisks(disks: readonly DiskDefinition[], machine: string): void {
  const names = disks.map((disk) => disk.name);
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice !== undefined) throw invalid(`two disks are called "${twice}"`);
  const paths = disks.filter((disk) => !disk.readonly).map((disk) => disk.path);
  const samePath = paths.find((path, index) => paths.indexOf(path) !== index);
  if (samePath !== undefined) throw invalid(`two disks use the file ${samePath}`);
  const count = (bus: string) => disks.filter((disk) => disk.bus === bus).length;
  if (count('virtio') > MAX_VIRTIO_DISKS)
    throw invalid(`more than ${MAX_VIRTIO_DISKS} virtio disks; use bus scsi for some`);
  if (count('sata') > MAX_SATA_DISKS) throw invalid(`more than ${MAX_SATA_DISKS} sata disks`);
  const isPc = machine.startsWith('pc-i440fx');
  if (isPc && count('sata') > 0)
    throw invalid(`machine ${machine} has no SATA controller: use bus ide, or machine q35`);
  if (!isPc && count('ide') > 0)
    throw invalid(`machine ${machine} has no IDE controller: use bus sata, or machine pc`);
  if (count('ide') > 4) throw invalid('more than 4 ide disks');
}
