/** The catalog itself: made again from what stands beside the images, without a daemon. */
import type { Command } from 'commander';
import { sessionPaths, systemPaths } from '../../paths.ts';
import type { RebuildReport, RebuiltGuest } from '../../recovery/rebuild.ts';
import { Output } from '../output.ts';
import type { GlobalOptions } from '../session.ts';
import { styleOfState } from '../style.ts';
import { renderTable, type Cell, type Column } from '../table.ts';
import { count } from '../units.ts';

export function register(program: Command): void {
  const catalog = program
    .command('catalog')
    .summary("the daemon's record of guests and images")
    .description('The database in which the daemon keeps what it knows of guests, layers and images.');
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
