/** What a guest's disks are made of, and what images hold of them for other programs: disk, export, mount. */
import { Option, type Command } from 'commander';
import type { DiskExport, DiskTree } from '../../api/schemas.ts';
import type { HeldExport } from '../../client/disk-export.ts';
import { StasisError } from '../../errors.ts';
import { positiveNumber } from '../arguments.ts';
import { showAsFile } from '../disk-file.ts';
import { diskNamed, renderDisk } from '../disk-tree.ts';
import { refuseExisting, writeExport, type ExportTarget } from '../export-file.ts';
import { renderFields } from '../fields.ts';
import { mutate, noWaitOption, type MutationOptions } from '../mutation.ts';
import { renderOutcomes } from '../operation-view.ts';
import { Progress } from '../progress.ts';
import { openSession } from '../session.ts';
import { Stop } from '../stop.ts';
import { formatBytes } from '../units.ts';

export function register(program: Command): void {
  const disk = program
    .command('disk')
    .summary('disks and their layers')
    .description('Disks and their layers.');
  disk
    .command('tree')
    .summary('layers, who holds them, and what they occupy')
    .description(
      'Shows the layers of each disk, the root first, with those of clones; ● is what a guest writes to, ○ what an image or another layer needs.',
    )
    .argument('<guest>')
    .option('--disk <name>', 'only this disk')
    .addHelpText(
      'after',
      '\nExamples:\n  $ stasis disk tree web1\n  $ stasis disk tree web1 --disk root --json',
    )
    .action(tree);

  disk
    .command('compact')
    .summary('shorten the chains of layers')
    .description(
      'Copies what lies between up into the layer that the guest writes to, so that reading goes through fewer; images stay as they are. Anything else that is to be done to the guest goes first, and ends it; what is copied by then stays copied.',
    )
    .argument('<guest>')
    .option('--disk <name>', 'only this disk')
    .option('--rate <MiB>', 'of a running guest: so many MiB a second at most', positiveNumber)
    .addOption(noWaitOption())
    .addHelpText(
      'after',
      '\nExamples:\n  $ stasis disk compact web1\n  $ stasis disk compact web1 --disk root --rate 50',
    )
    .action(compact);

  program
    .command('export')
    .summary('write a disk of an image to a flat file')
    .description(
      'Writes a disk, as it was when the image was taken, to a file that stands alone, also while the guest runs. Empty parts become holes. ^C ends it and leaves nothing.',
    )
    .argument('<guest>')
    .argument('<image>', 'name of the image')
    .argument('<file>')
    .option('--disk <name>', 'which disk (default: the only one)')
    .addOption(new Option('--format <format>', 'of the file').choices(['qcow2', 'raw']).default('qcow2'))
    .option('--force', 'replace the file when it is there')
    .addHelpText(
      'after',
      `
Examples:
  $ stasis export web1 before-update --disk root root.qcow2
  $ stasis export web1 nightly root.img --format raw --force`,
    )
    .action(exportDisk);

  program
    .command('mount')
    .summary('let other programs read a disk of an image')
    .description(
      'Serves a disk, as it was when the image was taken, read-only, until ^C: as an NBD export, or with --fuse as a file. The guest is neither started nor stopped for it.',
    )
    .argument('<guest>')
    .argument('<image>', 'name of the image')
    .option('--disk <name>', 'which disk (default: the only one)')
    .option('--fuse <file>', 'show the raw disk as this file, which is empty or not there yet')
    .addHelpText(
      'after',
      `
Examples:
  $ stasis mount web1 before-update --disk root              # prints the NBD URI
  $ stasis mount web1 before-update --fuse /tmp/web1.img &   # then read single files from it:
  $ partx --show /tmp/web1.img                               #   where its partitions begin, in sectors of 512 bytes
  $ mount -o ro,loop,offset=$((2048*512)) /tmp/web1.img /mnt #   ext4: ro,loop,noload,…   XFS: ro,loop,norecovery,…
  $ debugfs -R 'cat /etc/fstab' '/tmp/web1.img?offset=1048576'  # ext4 without root's rights; others: 7z, fls
A Windows disk: NTFS begins at such an offset too; see docs/guests.md.`,
    )
    .action(mount);
}

async function tree(guest: string, options: { disk?: string }, command: Command): Promise<void> {
  const { client, output } = await openSession(command);
  const all = await client.listDisks(guest);
  const disks = options.disk === undefined ? all : [diskNamed(all, options.disk, guest)];
  const isFirst = (disk: DiskTree) => disk === disks[0];
  output.print(disks, () =>
    disks.flatMap((disk) => [...(isFirst(disk) ? [] : ['']), ...renderDisk(disk, output.width)]),
  );
}

async function compact(
  guest: string,
  options: MutationOptions & { disk?: string; rate?: number },
  command: Command,
): Promise<void> {
  const session = await openSession(command);
  const { disk, rate } = options;
  const request = { disk, bytesPerSecond: rate === undefined ? undefined : rate * 1024 ** 2 };
  await mutate(session, options, {
    run: (waiting) => session.client.compactDisks(guest, request, waiting),
    document: (_, operation) => operation,
    text: (_, operation) => renderOutcomes(operation),
  });
}

interface ExportOptions {
  readonly disk?: string;
  readonly format: 'qcow2' | 'raw';
  readonly force?: true;
}

async function exportDisk(
  guest: string,
  image: string,
  file: string,
  { disk, format, force }: ExportOptions,
  command: Command,
): Promise<void> {
  const { client, output } = await openSession(command);
  const target: ExportTarget = { file, format, force: force === true };
  await refuseExisting(target);
  using stop = new Stop();
  using held = await client.exportDisk(guest, image, { disk }, { signal: stop.signal });
  using progress = new Progress();
  const { sizeBytes: bytesTotal } = held.info;
  const shown = { kind: 'export', guest, image, phase: 'write', state: 'running', bytesTotal } as const;
  const onProgress = (done: number) => progress.update({ ...shown, bytesDone: done * bytesTotal });
  const written = await writeExport(held.info, target, { signal: stop.signal, onProgress });
  progress.clear();
  const { storedBytes, sizeBytes } = written;
  output.print(
    written,
    () =>
      `exported ${guest} / ${image}, disk ${written.disk}, to ${file}: ${formatBytes(sizeBytes)}, ${formatBytes(storedBytes)} stored`,
  );
}

interface MountOptions {
  readonly disk?: string;
  readonly fuse?: string;
}

async function mount(
  guest: string,
  image: string,
  { disk, fuse }: MountOptions,
  command: Command,
): Promise<void> {
  const { client, output } = await openSession(command);
  using stop = new Stop();
  using held = await client.exportDisk(guest, image, { disk }, { signal: stop.signal });
  await using file = fuse === undefined ? undefined : await showAsFile(held.info, fuse);
  output.print({ ...held.info, file: file?.path ?? null }, () => describeMount(held.info, file?.path));
  if (await stopped(held, file?.ended, stop.signal)) return;
  throw new StasisError('storage-failed', `the disk of ${guest} / ${image} is not served any more`, {
    guest,
    image,
  });
}

/** Waits for ^C. @returns false when what is shown has ended by itself */
async function stopped(
  held: HeldExport,
  ended: Promise<string> | undefined,
  signal: AbortSignal,
): Promise<boolean> {
  const asked = new Promise<void>((resolve) => {
    signal.addEventListener('abort', () => resolve(), { once: true });
    if (signal.aborted) resolve();
  });
  await Promise.race([asked, held.closed, ...(ended === undefined ? [] : [ended])]);
  return signal.aborted;
}

function describeMount(
  { uri, guest, image, disk, sizeBytes }: DiskExport,
  file: string | undefined,
): string[] {
  const fields = renderFields([
    ['disk', `${guest} / ${image}, ${disk}, ${formatBytes(sizeBytes)}, read-only`, 'bold'],
    ['uri', uri],
    ['file', file],
  ]);
  const uses =
    file === undefined
      ? [`qemu-img info '${uri}'`, `nbdfuse disk.img '${uri}'`, `guestmount --ro -a '${uri}' -i /mnt`]
      : [`partx --show ${file}`, `mount -o ro,loop,offset=BYTES ${file} /mnt`, `7z l ${file}`];
  return [...fields, '', 'for instance:', ...uses.map((use) => `  ${use}`), '', '^C ends it'];
}
