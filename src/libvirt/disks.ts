/** Disks and CD-ROMs of a domain. */
import type { DefinitionInput } from '../guests/definition.ts';
import { driveAddress, pciAddress } from './address.ts';
import { bootOrder } from './boot.ts';
import type { Context } from './context.ts';
import type { Element } from './element.ts';

type Disk = NonNullable<DefinitionInput['disks']>[number];
type EmptyDrive = NonNullable<DefinitionInput['emptyDrives']>[number];

const BUSES = { virtio: 'virtio', sata: 'sata', scsi: 'scsi', ide: 'ide', nvme: 'nvme' } as const;
const FORMATS = {
  raw: 'raw',
  qcow2: 'qcow2',
  vmdk: 'vmdk',
  vdi: 'vdi',
  vpc: 'vpc',
  qed: 'qed',
} as const;

export interface Disks {
  readonly disks: Disk[];
  readonly emptyDrives: EmptyDrive[];
}

export function readDisks(devices: Element, context: Context): Disks {
  const disks: Disk[] = [];
  const emptyDrives: EmptyDrive[] = [];
  for (const element of devices.children('disk')) {
    const type = element.choice('type', { file: 'file', block: 'dev' } as const);
    const device = element.choice('device', { disk: 'disk', cdrom: 'cdrom' } as const) ?? 'disk';
    const target = element.children('target').at(0);
    const bus = target?.choice('bus', BUSES);
    const name = target?.peek('dev');
    // Not taken: what it is told as is the whole element.
    if (type === undefined || bus === undefined || name === undefined || !isKnownDevice(element)) continue;
    element.take();
    target?.take().attribute('dev');
    const common = { ...bootOrder(element), ...identity(element, bus) };
    const path = element.child('source')?.attribute(type);
    if (path !== undefined && path !== '')
      disks.push({
        name,
        path,
        device,
        bus,
        ...common,
        ...readDetails(element, device),
        ...place(element, bus, devices),
      });
    else if (device === 'cdrom' && bus !== 'virtio' && bus !== 'nvme') {
      readDetails(element, device); // of a medium that isn't there
      emptyDrives.push({
        name,
        bus,
        ...common,
        address: driveAddress(element) ?? `0:0:0:${emptyDrives.length}`,
      });
    } else context.problem(element, 'has no source: a disk without a file or device');
  }
  return { disks, emptyDrives };
}

/** A disk without `device` is one. */
function isKnownDevice(element: Element): boolean {
  return ['disk', 'cdrom', undefined].includes(element.peek('device'));
}

function readDetails(element: Element, device: 'disk' | 'cdrom') {
  const driver = element.child('driver');
  driver?.choice('name', { qemu: true });
  driver?.choice('copy_on_read', { off: false });
  const cache = driver?.choice('cache', {
    default: undefined,
    none: 'none',
    writeback: 'writeback',
    writethrough: 'writethrough',
    directsync: 'directsync',
    unsafe: 'unsafe',
  } as const);
  const io = driver?.choice('io', { threads: 'threads', native: 'native', io_uring: 'io_uring' } as const);
  const discard = driver?.choice('discard', { unmap: 'unmap', ignore: 'ignore' } as const);
  const detectZeroes = driver?.choice('detect_zeroes', { off: 'off', on: 'on', unmap: 'unmap' } as const);
  const readonly = element.child('readonly') !== undefined || device === 'cdrom';
  return {
    format: driver?.choice('type', FORMATS) ?? ('raw' as const),
    readonly,
    ...(cache === undefined ? {} : { cache }),
    ...(io === undefined ? {} : { io }),
    ...(discard === undefined ? {} : { discard }),
    ...(detectZeroes === undefined ? {} : { detectZeroes }),
  };
}

function identity(element: Element, bus: Disk['bus']): { serial?: string; deviceId?: string } {
  const serial = element.child('serial')?.text();
  const address = bus === 'scsi' ? element.children('address').at(0) : undefined;
  if (serial !== undefined && serial !== '')
    return { serial, ...(bus === 'scsi' ? { deviceId: serial } : {}) };
  // A name that libvirt makes of the address; systems find their disks by it, below /dev/disk/by-id.
  const part = (name: string) => address?.peek(name) ?? '0';
  return {
    ...(bus === 'virtio' ? { serial: '' } : {}),
    ...(address === undefined
      ? {}
      : { deviceId: `drive-scsi${part('controller')}-${part('bus')}-${part('target')}-${part('unit')}` }),
  };
}

function place(element: Element, bus: Disk['bus'], devices: Element): { address?: string; serial?: string } {
  if (bus === 'nvme') return nvmePlace(element, devices);
  const address = bus === 'virtio' ? pciAddress(element) : driveAddress(element);
  return address === undefined ? {} : { address };
}

/** libvirt has NVMe as a controller with a serial number, and the disk as a name space of it. */
function nvmePlace(element: Element, devices: Element): { address?: string; serial?: string } {
  const number = driveAddress(element)?.split(':')[0] ?? '0';
  const controller = devices
    .children('controller')
    .find((other) => other.peek('type') === 'nvme' && (other.peek('index') ?? '0') === number);
  controller?.take().attribute('type');
  controller?.attribute('index');
  const serial = controller?.child('serial')?.text();
  const address = controller === undefined ? undefined : pciAddress(controller);
  return { ...(serial === undefined ? {} : { serial }), ...(address === undefined ? {} : { address }) };
}
