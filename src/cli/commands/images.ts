/** Save images: save, images, info, restore, delete. */
import { type Command, Option } from 'commander';
import { DEFAULT_IMAGE, LIVE_METHODS, type LiveMethod } from '../../api/constants.ts';
import type { Guest, Image } from '../../api/schemas.ts';
import type { StasisClient } from '../../client/stasis-client.ts';
import { StasisError } from '../../errors.ts';
import { positiveNumber } from '../arguments.ts';
import { renderOutcomes } from '../operation-view.ts';
import { canAsk, confirm } from '../confirm.ts';
import { renderImage, summarizeSave } from '../image-view.ts';
import { mutate, noWaitOption, type MutationOptions } from '../mutation.ts';
import { renderPrediction } from '../prediction-view.ts';
import { openSession, type Session } from '../session.ts';
import { renderTable, type Cell, type Column } from '../table.ts';
import { howTaken, markedName, renderTree } from '../tree.ts';
import { formatAge, formatBytes, formatGain } from '../units.ts';

export function register(program: Command): void {
  program
    .command('save')
    .summary('save a guest: memory, devices and all disks at one instant')
    .description(
      "Saves a guest and stops it; with --live it goes on after a pause of milliseconds. Without a name it is the guest's default image, which replaces the one before.",
    )
    .argument('<guest>')
    .argument('[image]', 'name of the image')
    .option('--live', 'let the guest go on')
    .option('--max-pause <ms>', 'refuse rather than let the guest stand still for longer', positiveNumber)
    .addOption(
      new Option(
        '--method <method>',
        'how a live save is made (default: the best that guest and host allow)',
      ).choices(LIVE_METHODS),
    )
    .option('--dry-run', 'only predict what a live save would cost the guest now')
    .option(
      '--quiesce',
      "freeze the guest's file systems for that instant, through its agent; if that fails it is saved all the same, and says so",
    )
    .option('--require-quiesce', 'the same, but if that fails it is not saved')
    .option('--description <text>', 'why it was taken')
    .addOption(noWaitOption())
    .addHelpText(
      'after',
      `
Examples:
  $ stasis save web1                                   # and "stasis start web1" goes on from there
  $ stasis save web1 before-update --live --description "before the 24.04 upgrade"
  $ stasis save web1 --live --dry-run                  # how long would it stand still?
  $ stasis save web1 nightly --live --max-pause 50`,
    )
    .action(save);

  program
    .command('images')
    .summary('list save images')
    .description('Lists the save images of a guest, or of all guests.')
    .argument('[guest]')
    .option('--tree', 'show which image grew from which; ● is where the guest is now')
    .addHelpText('after', '\nExamples:\n  $ stasis images\n  $ stasis images web1 --tree')
    .action(listImages);

  program
    .command('info')
    .summary('show one save image')
    .description('Shows everything that is known of one save image.')
    .argument('<guest>')
    .argument('[image]', 'name of the image', DEFAULT_IMAGE)
    .addHelpText('after', '\nExample:\n  $ stasis info web1 before-update')
    .action(info);

  program
    .command('restore')
    .summary('put a guest back to a save image')
    .description(
      'Puts a guest back to an image: its memory and its disks, at that instant. What the guest is now is given up, so a terminal asks first.',
    )
    .argument('<guest>')
    .argument('[image]', 'name of the image', DEFAULT_IMAGE)
    .option('--delete', 'delete the image once the guest is proven to run')
    .option('--paused', 'leave the guest paused')
    .option('--eager', 'load all memory before it runs, and be independent of the image then')
    .addOption(
      new Option(
        '--method <method>',
        'how its memory comes back (default: the fastest that image and host allow)',
      )
        .choices(['mapped', 'lazy', 'eager'])
        .conflicts('eager'),
    )
    .option('--as <newguest>', 'make a new guest from the image and leave this one alone')
    .option('--save-current [name]', 'first save live what the guest is now')
    .option('--yes', "don't ask")
    .addOption(noWaitOption())
    .addHelpText(
      'after',
      `
Examples:
  $ stasis restore web1 before-update
  $ stasis restore web1 before-update --save-current          # named by the time
  $ stasis restore web1 before-update --save-current=after    # the image comes first, or use "="
  $ stasis restore web1 warm --as web1-test`,
    )
    .action(restore);

  program
    .command('delete')
    .summary('delete a save image')
    .description('Deletes an image, also while the guest runs and in the middle of a tree of images.')
    .argument('<guest>')
    .argument('[image]', 'name of the image', DEFAULT_IMAGE)
    .addOption(noWaitOption())
    .addHelpText('after', '\nExample:\n  $ stasis delete web1 before-update')
    .action(deleteImage);
}

interface SaveOptions extends MutationOptions {
  readonly live?: true;
  readonly quiesce?: true;
  readonly requireQuiesce?: true;
  readonly description?: string;
  readonly maxPause?: number;
  readonly method?: LiveMethod;
  readonly dryRun?: true;
}

async function save(
  guest: string,
  name: string | undefined,
  options: SaveOptions,
  command: Command,
): Promise<void> {
  const session = await openSession(command);
  const { live, description, method, maxPause: maxPauseMs } = options;
  const quiesce = options.requireQuiesce === undefined ? options.quiesce : ('require' as const);
  if (options.dryRun === true) {
    if (live === undefined)
      throw new StasisError('invalid-request', 'only a live save has a pause to predict: add --live', {
        guest,
      });
    const prediction = await session.client.predictSave(guest, { method, maxPauseMs });
    session.output.print(prediction, () => renderPrediction(prediction, session.output.width));
    return;
  }
  const request = { name, live, quiesce, description, method, maxPauseMs };
  await mutate(session, options, {
    run: (waiting) => session.client.createSaveImage(guest, request, waiting),
    text: summarizeSave,
  });
}

const IMAGE_COLUMNS: readonly Column[] = [
  { title: 'GUEST', flexible: true },
  { title: 'IMAGE', flexible: true },
  { title: 'TAKEN', align: 'right' },
  { title: 'MEMORY', align: 'right', spare: true },
  { title: 'DISKS', align: 'right', spare: true },
  { title: 'STORED', align: 'right' },
  { title: 'FREES', align: 'right' },
  { title: 'HOW', spare: true },
  { title: 'VERIFIED', spare: true },
  { title: 'DESCRIPTION', flexible: true, spare: true },
];

async function listImages(
  guest: string | undefined,
  options: { tree?: true },
  command: Command,
): Promise<void> {
  const { client, output } = await openSession(command);
  if (output.json || options.tree === undefined) {
    const images = await client.listSaveImages(guest);
    output.print(images, () =>
      images.length === 0
        ? 'no save images yet: stasis save GUEST'
        : renderTable(IMAGE_COLUMNS, images.map(imageRow), output.width),
    );
    return;
  }
  const { guests, images } = await treesOf(client, guest);
  const byGuest = Map.groupBy(images, (image) => image.guest);
  const trees = guests.map((each) => renderTree(each, byGuest.get(each.name) ?? [], output.width));
  output.lines(trees.flatMap((tree, index) => (index === 0 ? tree : ['', ...tree])));
}

/** Guests and their images, in one request. */
async function treesOf(
  client: StasisClient,
  name: string | undefined,
): Promise<{ guests: readonly Guest[]; images: readonly Image[] }> {
  if (name === undefined) {
    const { guests, images = [] } = await client.overview({ images: true });
    return { guests, images };
  }
  const { guest, images } = await client.guestOverview(name);
  return { guests: [guest], images };
}

function imageRow(image: Image): Cell[] {
  return [
    image.guest,
    { text: markedName(image), style: image.current ? 'bold' : [] },
    formatAge(image.createdAt),
    formatBytes(image.memoryBytes),
    formatBytes(image.diskBytes),
    formatBytes(image.storedBytes),
    formatGain(image),
    howTaken(image),
    soundness(image),
    { text: image.description, style: 'dim' },
  ];
}

/** When it was last found sound, and whether it was tried out then or before. */
function soundness({ state, verifiedAt, verified }: Image): Cell {
  if (state === 'broken') return { text: 'broken', style: 'red' };
  if (verifiedAt === null) return '';
  return `${formatAge(verifiedAt)}${verified.bootAt === null ? '' : ', booted'}`;
}

async function info(guest: string, name: string, _options: object, command: Command): Promise<void> {
  const { client, output } = await openSession(command);
  const image = await client.getSaveImageInfo(guest, name);
  output.print(image, () => renderImage(image, output.width));
}

interface RestoreOptions extends MutationOptions {
  readonly delete?: true;
  readonly paused?: true;
  readonly eager?: true;
  readonly method?: 'mapped' | 'lazy' | 'eager';
  readonly as?: string;
  readonly saveCurrent?: true | string;
  readonly yes?: true;
}

async function restore(
  guest: string,
  name: string,
  options: RestoreOptions,
  command: Command,
): Promise<void> {
  const session = await openSession(command);
  const { paused, saveCurrent, as: asNewGuest } = options;
  const givesUp = asNewGuest === undefined && saveCurrent === undefined;
  if (givesUp && options.yes === undefined && canAsk()) await askBeforeRestore(session, guest, name);
  const request = {
    delete: options.delete,
    paused,
    asNewGuest,
    saveCurrent,
    method: options.eager === undefined ? options.method : ('eager' as const),
  };
  await mutate(session, options, {
    run: (waiting) => session.client.restoreSaveImage(guest, name, request, waiting),
    text: (restored, operation) => [
      `restored ${restored.name} from ${guest} / ${name}: it is ${restored.state}`,
      ...renderOutcomes(operation),
    ],
  });
}

/** @throws `cancelled` when the answer is no; `guest-not-found` or `image-not-found` before anything is asked */
async function askBeforeRestore({ client }: Session, guestName: string, imageName: string): Promise<void> {
  const [guest, image] = await Promise.all([
    client.getGuest(guestName),
    client.getSaveImageInfo(guestName, imageName),
  ]);
  if (await confirm(`${whatIsGivenUp(guest, image)}\nRestore?`)) return;
  throw new StasisError('cancelled', 'nothing was restored', { guest: guestName, image: imageName });
}

function whatIsGivenUp(guest: Guest, image: Image): string {
  const saved =
    guest.lastImageAt === null ? 'was never saved' : `was last saved ${formatAge(guest.lastImageAt)}`;
  return [
    `${guest.name} goes back to ${image.name}, taken ${formatAge(image.createdAt)}.`,
    `What it is now is given up, with its disks: it is ${guest.state} and ${saved}.`,
    'With --save-current it would be saved first.',
  ].join('\n');
}

async function deleteImage(
  guest: string,
  name: string,
  options: MutationOptions,
  command: Command,
): Promise<void> {
  const session = await openSession(command);
  await mutate(session, options, {
    run: (waiting) => session.client.deleteSaveImage(guest, name, waiting),
    document: (_, operation) => operation,
    text: (_, operation) => [`deleted ${guest} / ${name}`, ...renderOutcomes(operation)],
  });
}
