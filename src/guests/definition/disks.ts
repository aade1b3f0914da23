/** A guest's disks and media. */
import { resolve } from 'node:path';
import Type, { type Static } from 'typebox';
import { DRIVER_NAMES, type DriverName } from '../../api/constants.ts';
import { DriveAddress, PciAddress } from './addresses.ts';
import { parseSize } from './memory.ts';
import { invalid, OneOf, strict } from './schema.ts';

/** Slots of the root bus are set aside for so many, so that addresses never move. */
const MAX_VIRTIO_DISKS = 14;
const MAX_SATA_DISKS = 6;
const MAX_NVME_DISKS = 4;

const DiskName = Type.String({ pattern: '^[A-Za-z0-9][A-Za-z0-9_-]{0,14}$' });
const BUSES = ['virtio', 'sata', 'scsi', 'ide', 'nvme'] as const;

/** The disk that UEFI keeps its variables on: captured, restored and cloned like any other. */
export const VARIABLE_STORE = 'uefi-vars';

/** How a disk is written to and known, where it matters; what isn't said is as QEMU has it. */
const details = {
  /** whether it is a CD-ROM drive; without it a raw file that is read-only is a CD */
  device: Type.Optional(OneOf('disk', 'cdrom')),
  /** serial number that the guest sees; empty: none. Without it a virtio disk has its name. */
  serial: Type.Optional(Type.String({ pattern: '^[ -~]{0,36}$' })),
  /** of a SCSI disk: the text that it is identified by, which is in the names below /dev/disk/by-id */
  deviceId: Type.Optional(Type.String({ pattern: '^[ -~]{1,64}$' })),
  /** its place in the order of booting; if any device has one, only those that do are booted from */
  bootOrder: Type.Optional(Type.Integer({ minimum: 1, maximum: 100 })),
  cache: Type.Optional(OneOf('none', 'writeback', 'writethrough', 'directsync', 'unsafe')),
  io: Type.Optional(OneOf('threads', 'native', 'io_uring')),
  discard: Type.Optional(OneOf('unmap', 'ignore')),
  detectZeroes: Type.Optional(OneOf('off', 'on', 'unmap')),
  /** PCI for virtio and nvme, else controller, bus, target and unit */
  address: Type.Optional(Type.Union([PciAddress, DriveAddress])),
} as const;

export const DiskInput = Type.Object(
  {
    name: DiskName,
    path: Type.String({ minLength: 1 }),
    format: OneOf('qcow2', 'raw', 'vmdk', 'vdi', 'vhdx', 'vpc', 'qed'),
    bus: Type.Optional(OneOf(...BUSES)),
    readonly: Type.Optional(Type.Boolean()),
    driver: Type.Optional(OneOf(...DRIVER_NAMES)),
    /** false: images don't hold it, and it is used as it is */
    capture: Type.Optional(Type.Boolean()),
    /** whether other guests write to it */
    shareable: Type.Optional(Type.Boolean()),
    /** of a plain logical volume: the area of each snapshot */
    snapshotSize: Type.Optional(Type.Union([Type.String(), Type.Integer()])),
    ...details,
  },
  strict,
);
type DiskInput = Static<typeof DiskInput>;

/** CD-ROM drives with nothing in them. */
export const EmptyDriveInput = Type.Object(
  {
    name: DiskName,
    bus: OneOf('sata', 'scsi', 'ide'),
    address: DriveAddress,
    serial: details.serial,
    deviceId: details.deviceId,
    bootOrder: details.bootOrder,
  },
  strict,
);
export type EmptyDrive = Static<typeof EmptyDriveInput>;

type Details = { readonly [Key in keyof typeof details]?: DiskInput[Key] };

export interface DiskDefinition extends Details {
  readonly name: string;
  readonly path: string;
  readonly format: DiskInput['format'];
  /** `pflash`: where UEFI keeps its variables; there is one at most, called `VARIABLE_STORE` */
  readonly bus: (typeof BUSES)[number] | 'pflash';
  readonly readonly: boolean;
  /** how its layers are made; absent in definitions of before there was a choice, and in disks without layers */
  readonly driver?: DriverName;
  /** of a plain logical volume: the area of each snapshot, see storage/lvm.ts */
  readonly snapshotBytes?: number;
  /** false: images don't hold it, and it is used as it is */
  readonly capture?: false;
  /** of a read-only disk: other guests read it too */
  readonly shareable?: boolean;
}

/** @param directory what relative paths are relative to */
export function pinDisk({ snapshotSize, capture, ...disk }: DiskInput, directory: string): DiskDefinition {
  return {
    ...disk,
    ...(capture === false ? { capture } : {}),
    ...(snapshotSize === undefined
      ? {}
      : { snapshotBytes: parseSize(`snapshotSize of disk ${disk.name}`, snapshotSize) }),
    path: resolve(directory, disk.path),
    bus: disk.bus ?? 'virtio',
    readonly: disk.readonly ?? disk.device === 'cdrom',
  };
}

/** What one disk can't say alone. @throws StasisError `invalid-definition` */
export function checkDisks(
  disks: readonly DiskDefinition[],
  emptyDrives: readonly EmptyDrive[],
  machine: string,
): void {
  const names = [...disks, ...emptyDrives].map(({ name }) => name);
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice !== undefined) throw invalid(`two disks are called "${twice}"`);
  if (names.includes(VARIABLE_STORE))
    throw invalid(`a disk can't be called ${VARIABLE_STORE}: give the variables of UEFI as firmware.vars`);
  const paths = disks.filter((disk) => !disk.readonly).map((disk) => disk.path);
  const samePath = paths.find((path, index) => paths.indexOf(path) !== index);
  if (samePath !== undefined) throw invalid(`two disks use the file ${samePath}`);
  const placeless = disks.filter((disk) => disk.address === undefined);
  const count = (bus: string) => placeless.filter((disk) => disk.bus === bus).length;
  if (count('virtio') > MAX_VIRTIO_DISKS)
    throw invalid(`more than ${MAX_VIRTIO_DISKS} virtio disks; use bus scsi for some`);
  if (count('nvme') > MAX_NVME_DISKS)
    throw invalid(`more than ${MAX_NVME_DISKS} nvme disks; give addresses to some`);
  if (count('sata') > MAX_SATA_DISKS) throw invalid(`more than ${MAX_SATA_DISKS} sata disks`);
  if (count('ide') > 4) throw invalid('more than 4 ide disks');
  const isPc = machine.startsWith('pc-i440fx');
  const has = (bus: string) => disks.some((disk) => disk.bus === bus);
  if (isPc && has('sata'))
    throw invalid(`machine ${machine} has no SATA controller: use bus ide, or machine q35`);
  if (!isPc && has('ide'))
    throw invalid(`machine ${machine} has no IDE controller: use bus sata, or machine pc`);
  disks.forEach(checkDisk);
}

function checkDisk(disk: DiskDefinition): void {
  checkDriver(disk);
  const { name, bus, device, readonly, address, deviceId } = disk;
  const isPci = bus === 'virtio' || bus === 'nvme';
  if (address !== undefined && isPci !== address.includes('.'))
    throw invalid(
      `disk ${name}: ${address} is no address of a ${bus} disk; write it like ${isPci ? '04:00.0' : '0:0:0:1'}`,
    );
  if (device === 'cdrom' && (isPci || !readonly))
    throw invalid(`disk ${name}: a CD-ROM is read-only, and its bus is sata, scsi or ide`);
  if (disk.detectZeroes === 'unmap' && disk.discard === 'ignore')
    throw invalid(`disk ${name}: detectZeroes unmap needs discard unmap`);
  if (deviceId !== undefined && bus !== 'scsi')
    throw invalid(`disk ${name}: only a scsi disk has a deviceId`);
}

function checkDriver({ name, driver, readonly, capture, format }: DiskDefinition): void {
  const hasLayers = !readonly && capture !== false && (format === 'qcow2' || format === 'raw');
  if (driver === undefined || hasLayers) return;
  const what = readonly ? 'read-only' : capture === false ? 'excluded from images' : format;
  throw invalid(`disk ${name} has no layers, being ${what}, and so no driver`);
}
