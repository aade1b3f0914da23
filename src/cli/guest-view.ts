/** One guest as a person reads it. */
import type { Guest, GuestDisk, Policy } from '../api/schemas.ts';
import { renderFields, type Field } from './fields.ts';
import { describeRules, describeSchedule } from './schedule-view.ts';
import { styleOfState } from './style.ts';
import { renderTable, type Cell, type Column } from './table.ts';
import { count, formatAge, formatBytes, formatDate } from './units.ts';

const DISK_COLUMNS: readonly Column[] = [
  { title: 'DISK' },
  { title: 'SIZE', align: 'right' },
  { title: 'FORMAT', spare: true },
  { title: 'BUS', spare: true },
  { title: 'DRIVER', spare: true },
  { title: 'LAYERS', align: 'right' },
  { title: 'FILE', flexible: true, cut: 'start' },
];

/** What `define` says. */
export function describeDefined(guest: Guest): string {
  return (
    `defined ${guest.name}: ${formatBytes(guest.memoryBytes)} memory, ${count(guest.cpus, 'CPU')}, ` +
    `${count(guest.disks.length, 'disk')}, ${guest.machine}`
  );
}

export function renderGuest(guest: Guest, width: number): string[] {
  const state = guest.stateReason === null ? guest.state : `${guest.state}: ${guest.stateReason}`;
  const fields = renderFields([
    ['name', guest.name, 'bold'],
    ['state', state, styleOfState(guest.state)],
    ['memory', formatBytes(guest.memoryBytes)],
    ['cpus', String(guest.cpus)],
    ['machine', `${guest.machine}, ${guest.cpu}, ${guest.accelerator}`],
    ['qemu', describeQemu(guest)],
    ['images', describeImages(guest)],
    ['now', guest.currentImage === null ? undefined : `grew from ${guest.currentImage}`],
    ['policy', describePolicy(guest.policy)],
    ...guest.schedules.map((schedule): Field => [`schedule ${schedule.name}`, describeSchedule(schedule)]),
    ['retention', describeRules(guest.retention)],
    ['operation', guest.operation],
    ['pid', guest.pid === null ? undefined : String(guest.pid)],
    ['uuid', guest.uuid],
    ['defined', formatDate(guest.createdAt)],
  ]);
  return guest.disks.length === 0
    ? fields
    : [...fields, '', ...renderTable(DISK_COLUMNS, guest.disks.map(diskRow), width)];
}

/** Which QEMU of the host is to run it, and which does. */
export function describeQemu({ qemu: { build, version } }: Guest): string {
  const which = build === null ? 'the usual one' : `build ${build}`;
  return version === null ? which : `${which}; it runs by ${version}`;
}

function describeImages(guest: Guest): string {
  if (guest.lastImage === null || guest.lastImageAt === null) return String(guest.images);
  return `${guest.images}, last ${guest.lastImage} (${formatAge(guest.lastImageAt)})`;
}

function describePolicy(policy: Policy): string {
  const delay = policy.delaySeconds === 0 ? '' : `, delay ${policy.delaySeconds} s`;
  return `on boot ${policy.onBoot}, on shutdown ${policy.onShutdown}, order ${policy.order}${delay}`;
}

function diskRow(disk: GuestDisk): Cell[] {
  return [
    disk.name,
    formatBytes(disk.sizeBytes),
    disk.format,
    disk.readonly ? `${disk.bus}, read-only` : disk.bus,
    disk.driver ?? '–',
    String(disk.layers),
    disk.path,
  ];
}
