/** One save image as a person reads it. */
import type { Image } from '../api/schemas.ts';
import { renderFields, type Field } from './fields.ts';
import { styleOfState } from './style.ts';
import { renderTable, type Cell, type Column } from './table.ts';
import { printable } from './text-width.ts';
import { count, formatAge, formatBytes, formatDate, formatDuration, formatGain } from './units.ts';

const DISK_COLUMNS: readonly Column[] = [
  { title: 'DISK' },
  { title: 'SIZE', align: 'right' },
  { title: 'STORED', align: 'right' },
  { title: 'FORMAT', spare: true },
  { title: 'LAYER', flexible: true, cut: 'start' },
];

/** What a save did, in a line. */
export function summarizeSave(image: Image): string {
  const facts = [
    `${formatBytes(image.memoryBytes)} memory`,
    count(image.disks.length, 'disk'),
    image.pauseMs === null ? 'stopped' : `paused ${formatDuration(image.pauseMs)}`,
    `${formatBytes(image.storedBytes)} stored`,
    `took ${formatDuration(image.saveMs)}`,
  ];
  return printable(`saved ${image.guest} / ${image.name}: ${facts.join(', ')}`);
}

export function renderImage(image: Image, width: number): string[] {
  const fields = renderFields([
    ['guest', image.guest, 'bold'],
    ['image', image.current ? `${image.name} (the guest is here now)` : image.name, 'bold'],
    ['state', image.state, styleOfState(image.state)],
    ['protected', image.protected ? 'yes: nothing removes it' : undefined, 'yellow'],
    ['description', image.description],
    ['schedule', image.schedule],
    ['taken', `${formatDate(image.createdAt)} (${formatAge(image.createdAt)})`],
    ['how', describeCapture(image)],
    ['pause', describePause(image)],
    ['file systems', describeQuiesce(image), image.quiesce === 'failed' ? 'yellow' : undefined],
    ['took', formatDuration(image.saveMs)],
    ['memory', formatBytes(image.memoryBytes)],
    ['disks', `${formatBytes(image.diskBytes)} as the guest sees them`],
    ['stored', formatBytes(image.storedBytes)],
    ['deleting it frees', formatGain(image)],
    ['parent', image.parent ?? 'none'],
    ['restored', describeRestores(image)],
    ['verified', describeVerification(image)],
    ['damage', image.damage, 'red'],
    ['machine', `${image.machine}, QEMU ${image.qemuVersion}`],
    ['memory file', image.memoryFile],
    ['screen', image.screenFile],
    ...image.media.map(describeMedium),
  ]);
  return image.disks.length === 0
    ? fields
    : [...fields, '', ...renderTable(DISK_COLUMNS, image.disks.map(diskRow), width)];
}

function describeCapture(image: Image): string {
  const facts = [image.live ? 'live' : 'stopped afterwards', image.method];
  if (image.guestWasPaused) facts.push('the guest was paused');
  return facts.join(', ');
}

/** How long, for what, and how that compares with what was expected and allowed. */
function describePause({ pauseMs, pauseParts, predictedPauseMs, maxPauseMs }: Image): string | undefined {
  if (pauseMs === null) return undefined;
  const facts = [formatDuration(pauseMs)];
  if (pauseParts !== null) {
    const { stopMs, disksMs, memoryMs, resumeMs } = pauseParts;
    const parts = { stop: stopMs, disks: disksMs, memory: memoryMs, resume: resumeMs };
    facts.push(
      `(${Object.entries(parts)
        .map(([name, ms]) => `${name} ${formatDuration(ms)}`)
        .join(', ')})`,
    );
  }
  if (predictedPauseMs !== null) facts.push(`predicted ${formatDuration(predictedPauseMs)}`);
  if (maxPauseMs !== null)
    facts.push(`${pauseMs > maxPauseMs ? 'MORE THAN' : 'within'} the ${formatDuration(maxPauseMs)} allowed`);
  return facts.join(' ');
}

function describeMedium({ disk, path, kind, sha256 }: Image['media'][number]): Field {
  if (kind === 'excluded') return [`disk ${disk}`, `${path}, NOT in the image: used as it is`, 'yellow'];
  return [`disk ${disk}`, `${path}, read-only, SHA-256 ${sha256}`];
}

function describeQuiesce({ quiesce, quiesceReason, frozenMs, live }: Image): string {
  if (quiesce === 'frozen') {
    if (frozenMs !== null) return `frozen, for ${formatDuration(frozenMs)}`;
    return live ? 'frozen' : 'frozen, thawed when it is restored';
  }
  return `not frozen: ${quiesceReason}`;
}

function describeRestores(image: Image): string {
  if (image.restoredCount === 0) return 'never';
  const method = image.restoreMethod === null ? '' : `, last ${image.restoreMethod}`;
  return `${count(image.restoredCount, 'time')}${method}`;
}

function describeVerification({ verifiedAt, verified: { bootAt, evidence } }: Image): string {
  if (verifiedAt === null) return 'not yet';
  const when = `${formatDate(verifiedAt)} (${formatAge(verifiedAt)})`;
  return bootAt === null ? when : `${when}; restored fine at ${formatDate(bootAt)}: ${evidence.join(', ')}`;
}

function diskRow(disk: Image['disks'][number]): Cell[] {
  return [disk.name, formatBytes(disk.sizeBytes), formatBytes(disk.storedBytes), disk.format, disk.layer];
}
