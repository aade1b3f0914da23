/** The catalog itself: copied while the daemon goes on, and made again from what stands beside the images without one. */
import { open, rm, type FileHandle } from 'node:fs/promises';
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { StasisError, errnoOf, messageOf } from '../../errors.ts';
import { sessionPaths, systemPaths } from '../../paths.ts';
import type { RebuildReport, RebuiltGuest } from '../../recovery/rebuild.ts';
import { Output } from '../output.ts';
import { openSession, type GlobalOptions } from '../session.ts';
import { styleOfState } from '../style.ts';
import { renderTable, type Cell, type Column } from '../table.ts';
import { count, formatBytes } from '../units.ts';

export function register(program: Command): void {
  const catalog = program
    .command('catalog')
    .summary("the daemon's record of guests and images")
    .description('The database in which the daemon keeps what it knows of guests, layers and images.');
  catalog
    .command('backup')
    .summary('copy it while the daemon goes on')
    .description(
      'Copies the catalog as it is at one instant, while the daemon goes on, to a file beside it or to the given one. The daemon does so once a day by itself, and keeps the newest five. To go back to one: end the daemon, put it in the place of the catalog, and `stasis catalog rebuild`.',
    )
    .argument('[file]', 'a new file; without it one in the directory of backups')
    .addHelpText('after', '\nExample:\n  $ stasis catalog backup /backup/stasis-catalog.sqlite')
    .action(backup);
  catalog
    .command('rebuild')
    .summary('make it again from what stands beside the images')
    .description(
      'Makes the catalog again when it is lost or damaged, or a backup of it was put back: from the records that stand beside layers and images, held against the files. While no daemon runs; guests may. Nothing is thrown away: the old catalog, and files that come to nothing, keep their content under another name.',
    )
    .option('--dry-run', 'only say what would be')
    .option('--replace', 'also when the catalog that is there is healthy')
    .option('--system', "the system daemon's, not the user's own")
    .addHelpText(
      'after',
      '\nExamples:\n  $ stasis catalog rebuild --dry-run\n  $ sudo systemctl stop stasis.socket stasis.service && sudo stasis catalog rebuild --system',
    )
    .action(rebuild);
}

async function backup(file: string | undefined, _options: object, command: Command): Promise<void> {
  const { client, output } = await openSession(command);
  const taken = await client.backUpCatalog();
  if (file === undefined) {
    output.print(taken, () => `${taken.path} (${formatBytes(taken.sizeBytes)})`);
    return;
  }
  await writeNew(file, client.readCatalogBackup(taken.name));
  output.print({ ...taken, path: resolve(file) }, () => `${file} (${formatBytes(taken.sizeBytes)})`);
}

/** A file that wasn't there; when it can't be written to its end it isn't there after that either. */
async function writeNew(file: string, content: AsyncIterable<Uint8Array>): Promise<void> {
  await using handle = await openNew(file);
  try {
    await handle.writeFile(content);
    await handle.sync();
  } catch (error) {
    await rm(file, { force: true });
    throw error;
  }
}

async function openNew(file: string): Promise<FileHandle> {
  try {
    return await open(file, 'wx', 0o600);
  } catch (error) {
    if (errnoOf(error) === 'EEXIST')
      throw new StasisError('invalid-request', `${file} is there already; choose another name`);
    throw new StasisError('invalid-request', `${file} can't be written: ${messageOf(error)}`, {
      cause: error,
    });
  }
}

interface RebuildFlags {
  readonly dryRun?: true;
  readonly replace?: true;
  readonly system?: true;
}

async function rebuild(flags: RebuildFlags, command: Command): Promise<void> {
  const { json = false } = command.optsWithGlobals<GlobalOptions>();
  const output = new Output(json);
  const { rebuildCatalog } = await import('../../recovery/rebuild.ts');
  const report = await rebuildCatalog({
    paths: flags.system === true ? systemPaths() : sessionPaths(),
    dryRun: flags.dryRun === true,
    replace: flags.replace === true,
  });
  output.print(report, () => renderReport(report, output.width));
}

const COLUMNS: readonly Column[] = [
  { title: 'GUEST', flexible: true },
  { title: 'IMAGE', flexible: true },
  { title: 'STATE' },
  { title: 'WHY', flexible: true },
];

const LEFT_OUT_COLUMNS: readonly Column[] = [
  { title: 'LEFT OUT', flexible: true, cut: 'start' },
  { title: 'WHY', flexible: true },
];

function renderReport(report: RebuildReport, width: number): string[] {
  const { guests, leftOut, notes, dryRun, previous, before, keepsHistory } = report;
  const images = guests.flatMap((guest) => guest.images);
  const broken = images.filter(({ state }) => state === 'broken').length;
  return [
    ...(before === null ? [] : [`before: ${before}`]),
    ...renderTable(COLUMNS, guests.flatMap(guestRows), width),
    ...(leftOut.length === 0 ? [] : ['', ...renderTable(LEFT_OUT_COLUMNS, leftOut.map(leftOutRow), width)]),
    ...notes.map((note) => `note: ${note}`),
    '',
    `${dryRun ? 'would be recovered' : 'recovered'}: ${count(guests.length, 'guest')}, ${count(images.length, 'image')}, ${broken} of them broken`,
    ...(previous === null ? [] : [`the catalog that was there is now ${previous}`]),
    keepsHistory
      ? 'operations, events, audit trail and credentials are those of the catalog that was there'
      : 'operations, events, audit trail and credentials begin anew',
  ];
}

function guestRows({ name, isRunning, images, notes }: RebuiltGuest): Cell[][] {
  const state = isRunning ? 'running' : 'stopped';
  return [
    [name, '', { text: state, style: styleOfState(state) }, notes.join('; ')],
    ...images.map((image): Cell[] => [
      name,
      image.name,
      { text: image.state, style: styleOfState(image.state) },
      image.damage ?? '',
    ]),
  ];
}

function leftOutRow({ path, reason, movedTo }: RebuildReport['leftOut'][number]): Cell[] {
  return [path, movedTo === null ? reason : `${reason}; now ${movedTo}`];
}
