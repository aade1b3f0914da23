/** Images that are made by themselves, and which ones stay: schedule, retention, protect, unprotect. */
import { Option, type Command } from 'commander';
import { DEFAULT_IMAGE, MISSED } from '../../api/constants.ts';
import type { Guest } from '../../api/schemas.ts';
import type { ScheduleChange } from '../../api/schedules.ts';
import { StasisError } from '../../errors.ts';
import { duration, longDuration, sizeOrNone, wholeNumber } from '../arguments.ts';
import { mutate, noWaitOption, type MutationOptions } from '../mutation.ts';
import { renderOutcomes } from '../operation-view.ts';
import { renderRetentionPlan, renderRules, renderSchedules, type GuestSchedule } from '../schedule-view.ts';
import { openSession, type Session } from '../session.ts';

export function register(program: Command): void {
  registerSchedule(program);
  registerRetention(program);
  for (const [name, summary, description] of [
    [
      'protect',
      'let nothing remove an image',
      'Nothing removes the image from now on: neither delete nor restore --delete, retention or a save that would replace it.',
    ],
    ['unprotect', 'let an image be removed again', 'The image may be removed again.'],
  ] as const)
    program
      .command(name)
      .summary(summary)
      .description(description)
      .argument('<guest>')
      .argument('[image]', 'name of the image', DEFAULT_IMAGE)
      .addOption(noWaitOption())
      .addHelpText('after', `\nExample:\n  $ stasis ${name} web1 before-update`)
      .action((guest: string, image: string, options: MutationOptions, command: Command) =>
        setProtection(name, guest, image, options, command),
      );
}

function registerSchedule(program: Command): void {
  const schedule = program
    .command('schedule')
    .summary('guests that are saved by themselves')
    .description(
      'Lists the schedules of a guest, or of all guests: when each is due next, and what became of its last run.',
    )
    .argument('[guest]')
    .addHelpText(
      'after',
      `
A running guest is saved live; one that does not run is skipped. A run that is due while the one before it is not done is skipped too.
A time of day that a change of the clocks leaves out is due right after it; one that comes twice is due once.

Examples:
  $ stasis schedule
  $ stasis schedule add web1 nightly --cron "0 3 * * *" --time-zone Europe/Berlin --jitter 10m --quiesce
  $ stasis retention web1 --keep-daily 7 --keep-weekly 4`,
    )
    .action(listSchedules);

  withTimes(schedule.command('add').summary('have a guest saved by itself'))
    .description(
      'Has a guest saved live by itself. What its rules of retention do not keep is removed after each save.',
    )
    .argument('<guest>')
    .argument('<name>', 'of the schedule; its images are called NAME-2026-11-24T0300')
    .addHelpText(
      'after',
      '\nExamples:\n  $ stasis schedule add web1 nightly --cron "0 3 * * *" --jitter 10m\n  $ stasis schedule add web1 hourly --cron @hourly --missed skip',
    )
    .action(addSchedule);
  withTimes(schedule.command('set').summary('change a schedule'))
    .description('Changes what is given of a schedule.')
    .argument('<guest>')
    .argument('<schedule>')
    .addHelpText('after', '\nExample:\n  $ stasis schedule set web1 nightly --cron "30 2 * * *"')
    .action(setSchedule);
  for (const [name, summary] of [
    ['remove', 'remove a schedule; its images stay'],
    ['pause', 'let nothing be due until it is resumed'],
    ['resume', 'let it be due again; what was meanwhile is not made up for'],
  ] as const)
    schedule
      .command(name)
      .summary(summary)
      .description(`${summary.charAt(0).toUpperCase()}${summary.slice(1)}.`)
      .argument('<guest>')
      .argument('<schedule>')
      .addOption(noWaitOption())
      .addHelpText('after', `\nExample:\n  $ stasis schedule ${name} web1 nightly`)
      .action((guest: string, scheduled: string, options: MutationOptions, command: Command) =>
        actOnSchedule(name, guest, scheduled, options, command),
      );
}

function withTimes(command: Command): Command {
  return command
    .option(
      '--cron <expression>',
      'when: minute hour day month weekday, with seconds before them if there are six, or @daily and the like',
    )
    .option('--time-zone <zone>', "IANA name, such as Europe/Berlin; 'host' is the host's (default)")
    .option(
      '--jitter <duration>',
      'begin each run up to so much later, so that not all guests begin at once',
      jitter,
    )
    .option('--quiesce', "freeze the guest's file systems for that instant, if that is possible")
    .option('--require-quiesce', 'the same, but if that fails it is not saved')
    .option('--no-quiesce', 'do not (default)')
    .addOption(
      new Option('--missed <what>', 'when it was due while no daemon ran (default: catch-up)').choices(
        MISSED,
      ),
    )
    .option('--image <pattern>', "of the images' names, with %Y %m %d %H %M %S; default: NAME-%Y-%m-%dT%H%M")
    .addOption(noWaitOption());
}

function jitter(text: string): number {
  return text === '0' ? 0 : Math.round(duration(text));
}

interface ScheduleOptions extends MutationOptions {
  readonly cron?: string;
  readonly timeZone?: string;
  readonly jitter?: number;
  readonly quiesce?: boolean;
  readonly requireQuiesce?: true;
  readonly missed?: ScheduleChange['missed'];
  readonly image?: string;
}

async function listSchedules(guest: string | undefined, _options: object, command: Command): Promise<void> {
  const { client, output } = await openSession(command);
  const guests = guest === undefined ? await client.listGuests() : [await client.getGuest(guest)];
  const all = guests.flatMap(schedulesOf);
  output.print(
    all.map((one) => ({ guest: one.guest, ...one.schedule })),
    () => renderSchedules(all, output.width),
  );
}

function schedulesOf({ name, schedules }: Guest): GuestSchedule[] {
  return schedules.map((schedule) => ({ guest: name, schedule }));
}

async function addSchedule(
  guest: string,
  name: string,
  options: ScheduleOptions,
  command: Command,
): Promise<void> {
  const { cron, ...change } = changeOf(options);
  if (cron === undefined)
    throw new StasisError('invalid-request', 'when? --cron "0 3 * * *" is every night at three', { guest });
  const session = await openSession(command);
  await mutate(session, options, {
    run: (waiting) => session.client.addSchedule(guest, { name, cron, ...change }, waiting),
    ...changedSchedules(session),
  });
}

async function setSchedule(
  guest: string,
  name: string,
  options: ScheduleOptions,
  command: Command,
): Promise<void> {
  const session = await openSession(command);
  await mutate(session, options, {
    run: (waiting) => session.client.changeSchedule(guest, name, changeOf(options), waiting),
    ...changedSchedules(session),
  });
}

async function actOnSchedule(
  what: 'remove' | 'pause' | 'resume',
  guest: string,
  name: string,
  options: MutationOptions,
  command: Command,
): Promise<void> {
  const session = await openSession(command);
  const { client } = session;
  await mutate(session, options, {
    run: (waiting) =>
      what === 'remove'
        ? client.removeSchedule(guest, name, waiting)
        : client.changeSchedule(guest, name, { paused: what === 'pause' }, waiting),
    ...changedSchedules(session),
  });
}

function changeOf(options: ScheduleOptions) {
  const { cron, timeZone, jitter: jitterSeconds, missed, image } = options;
  const quiesce = options.requireQuiesce === undefined ? options.quiesce : ('require' as const);
  return { cron, timeZone: timeZone === 'host' ? null : timeZone, jitterSeconds, quiesce, missed, image };
}

function changedSchedules({ output }: Session) {
  return {
    document: (guest: Guest) => guest.schedules,
    text: (guest: Guest) => renderSchedules(schedulesOf(guest), output.width),
  };
}

function registerRetention(program: Command): void {
  program
    .command('retention')
    .summary('which images stay')
    .description(
      "Changes what is given of a guest's rules, or prints them when nothing is. Nothing is removed by that: it is after each save of a schedule, or with --apply.",
    )
    .argument('[guest]', 'without it: of all guests, to look at')
    .option('--keep-last <n>', 'the newest ones', wholeNumber)
    .option('--keep-hourly <n>', 'the newest of each of so many hours that have one', wholeNumber)
    .option('--keep-daily <n>', 'of so many days', wholeNumber)
    .option('--keep-weekly <n>', 'of so many weeks', wholeNumber)
    .option('--keep-monthly <n>', 'of so many months', wholeNumber)
    .option('--keep-yearly <n>', 'of so many years', wholeNumber)
    .option(
      '--keep-within <duration>',
      'all not older than the newest by more: 36h, 30d, 4w, 1y; or none',
      longDuration,
    )
    .option('--all', 'the rules hold for images made by hand too')
    .option('--no-all', 'they do not (default)')
    .option('--quota <size>', 'what all images of the guest may occupy together: 200GiB; or none', sizeOrNone)
    .option('--quota-images <n>', 'how many there may be; 0: any number', wholeNumber)
    .option('--time-zone <zone>', "of hours, days, weeks…; 'host' is the host's (default)")
    .option('--dry-run', 'show which images stay and which would go, why, and what that frees')
    .option('--apply', 'remove what the rules do not keep')
    .addOption(noWaitOption())
    .addHelpText(
      'after',
      `
An image stays when a rule keeps it; 0 means no such rule, and without any all stay. Whatever the rules say these stay: images
made by hand (unless --all), the default image, protected ones, and the newest that verified (if none did, the newest).
A quota removes the oldest images of schedules that no rule keeps; where that is not enough, schedules no longer save.

Examples:
  $ stasis retention web1 --keep-last 3 --keep-daily 7 --keep-weekly 4 --quota 200GiB
  $ stasis retention web1 --dry-run
  $ stasis retention web1 --apply`,
    )
    .action(retention);
}

interface RetentionOptions extends MutationOptions {
  readonly keepLast?: number;
  readonly keepHourly?: number;
  readonly keepDaily?: number;
  readonly keepWeekly?: number;
  readonly keepMonthly?: number;
  readonly keepYearly?: number;
  readonly keepWithin?: number;
  readonly all?: boolean;
  readonly quota?: number | 'none';
  readonly quotaImages?: number;
  readonly timeZone?: string;
  readonly dryRun?: true;
  readonly apply?: true;
}

async function retention(
  guest: string | undefined,
  options: RetentionOptions,
  command: Command,
): Promise<void> {
  const rules = rulesOf(options);
  const isChange = Object.values(rules).some((value) => value !== undefined);
  if ([isChange, options.dryRun, options.apply].filter(Boolean).length > 1)
    throw new StasisError('invalid-request', 'rules are changed, looked at or applied, one after the other');
  const session = await openSession(command);
  const { client, output } = session;
  if (options.dryRun === true || (guest === undefined && !isChange && options.apply === undefined)) {
    const plans = await client.planRetention(guest);
    output.print(guest === undefined ? plans : plans[0], () =>
      plans.flatMap((plan, index) => [
        ...(index === 0 ? [] : ['']),
        ...renderRetentionPlan(plan, output.width),
      ]),
    );
    return;
  }
  if (guest === undefined) throw new StasisError('invalid-request', 'of which guest?');
  if (options.apply === true) {
    await mutate(session, options, {
      run: (waiting) => client.prune(guest, waiting),
      text: (outcomes, operation) =>
        outcomes.length === 0 ? 'nothing to remove' : renderOutcomes(operation),
    });
    return;
  }
  if (!isChange) {
    const current = (await client.getGuest(guest)).retention;
    output.print(current, () => renderRules(current));
    return;
  }
  await mutate(session, options, {
    run: (waiting) => client.setRetention(guest, rules, waiting),
    document: (changed) => changed.retention,
    text: (changed) => renderRules(changed.retention),
  });
}

function rulesOf(options: RetentionOptions) {
  const { keepLast, keepHourly, keepDaily, keepWeekly, keepMonthly, keepYearly, all } = options;
  const { keepWithin: keepWithinSeconds, quota, quotaImages, timeZone } = options;
  return {
    ...{ keepLast, keepHourly, keepDaily, keepWeekly, keepMonthly, keepYearly, keepWithinSeconds, all },
    quotaBytes: quota === 'none' ? null : quota,
    quotaImages: quotaImages === 0 ? null : quotaImages,
    timeZone: timeZone === 'host' ? null : timeZone,
  };
}

async function setProtection(
  what: 'protect' | 'unprotect',
  guest: string,
  image: string,
  options: MutationOptions,
  command: Command,
): Promise<void> {
  const session = await openSession(command);
  const { client } = session;
  await mutate(session, options, {
    run: (waiting) =>
      what === 'protect'
        ? client.protectSaveImage(guest, image, waiting)
        : client.unprotectSaveImage(guest, image, waiting),
    text: () =>
      what === 'protect'
        ? `${guest} / ${image} is protected: nothing removes it until "stasis unprotect ${guest} ${image}"`
        : `${guest} / ${image} may be removed again`,
  });
}
