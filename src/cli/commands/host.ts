/** What goes on in the daemon and on the host: host, ops, events, doctor, daemon. */
import { Option, type Command } from 'commander';
import type { Doctor, Event, HostStatus, Operation } from '../../api/schemas.ts';
import { StasisError } from '../../errors.ts';
import { duration, positiveNumber } from '../arguments.ts';
import { registerCheck } from './host-check.ts';
import { renderFields } from '../fields.ts';
import {
  bootFields,
  readinessFields,
  renderGuestOutcomes,
  renderSaveAllPlan,
  scrubField,
} from '../host-view.ts';
import { mutate, noWaitOption, watched, type MutationOptions } from '../mutation.ts';
import { renderOperation } from '../operation-view.ts';
import type { Output } from '../output.ts';
import { openSession, type Session } from '../session.ts';
import { paint, styleOfState } from '../style.ts';
import { renderTable, type Cell, type Column } from '../table.ts';
import { fitText, printable } from '../text-width.ts';
import { addUnitCommands } from './host-units.ts';
import type { Scope } from '../../systemd/manager.ts';
import { count, formatAge, formatBytes, formatDate } from '../units.ts';

export function register(program: Command): void {
  const host = program.command('host').summary('the host').description('What concerns the host as a whole.');
  host
    .command('status')
    .summary('the daemon and what it looks after')
    .description('Shows the daemon, its QEMU, guests, images and space.')
    .addHelpText('after', '\nExample:\n  $ stasis host status --json')
    .action(hostStatus);
  host
    .command('save-all')
    .summary('end all guests for a shutdown of the host')
    .description(
      'Ends all guests as their policies say: saved, several at once and as many as fit into the budget; what does not fit, fails or takes too long is shut down, and at the end of the time stopped.',
    )
    .option(
      '--budget <duration>',
      'all guests have ended after so long (90s, 2m); default: as long as it takes',
      duration,
    )
    .option('--dry-run', 'only show what would be done with which guest, how long it would take, and why')
    .addOption(noWaitOption())
    // For the unit of the guests: see src/systemd/units.ts.
    .addOption(new Option('--for-shutdown <scope>').choices(['system', 'user']).hideHelp())
    .addHelpText(
      'after',
      '\nExamples:\n  $ stasis host save-all --budget 90s --dry-run\n  $ stasis host save-all --budget 90s',
    )
    .action(saveAll);
  host
    .command('restore-all')
    .summary('start all guests as for a boot of the host')
    .description(
      'Starts all guests as their policies say, in their order; those too whose policy leaves their image for this command (skip-if-saved).',
    )
    .addOption(noWaitOption())
    .addHelpText('after', '\nExample:\n  $ stasis host restore-all')
    .action(restoreAll);
  addUnitCommands(host);

  registerCheck(host);

  program
    .command('ops')
    .summary('operations with progress')
    .description('Lists operations, the running ones first, or shows or cancels one of them.')
    .argument('[id]', 'one operation')
    .option('--cancel', 'ask it to undo itself, and wait until it has')
    .addHelpText('after', '\nExamples:\n  $ stasis ops\n  $ stasis ops ID --cancel')
    .action(operations);

  program
    .command('events')
    .summary('what happened')
    .description('Prints the latest events, oldest first.')
    .option('--follow', 'go on as they happen; with --json one document per line')
    .option('--guest <guest>', 'only those of one guest')
    .option('--limit <n>', 'how many at most', positiveNumber)
    .addHelpText('after', '\nExamples:\n  $ stasis events\n  $ stasis events --follow --json')
    .action(events);

  program
    .command('doctor')
    .summary("what this host can do, what it can't, how to enable it")
    .description("Checks what this host can do, what it can't, and says how to enable it.")
    .addHelpText('after', '\nExample:\n  $ stasis doctor')
    .action(doctor);

  program
    .command('daemon')
    .summary('run the daemon in the foreground')
    .description("Runs the daemon in the foreground. For a user's own session it starts by itself.")
    .allowUnknownOption()
    .allowExcessArguments()
    .addHelpText('after', '\nExample:\n  $ STASIS_HOME=/srv/stasis stasis daemon')
    .action(() => {
      // The program's entry runs the daemon when that is the first word, without loading any of this.
      throw new StasisError('invalid-request', '"daemon" must be the first word: stasis daemon [options]');
    });
}

async function hostStatus(_options: object, command: Command): Promise<void> {
  const { client, output } = await openSession(command);
  const status = await client.hostStatus();
  output.print(status, () => renderStatus(status));
}

function renderStatus(status: HostStatus): string[] {
  const { qemu, guests } = status;
  return renderFields([
    ['daemon', `${status.version}, pid ${status.pid}, ${formatBytes(status.residentBytes)} resident`],
    ['started', `${formatDate(status.startedAt)} (${formatAge(status.startedAt)})`],
    ['home', status.home],
    [
      'qemu',
      qemu === null ? 'none found' : `${qemu.version} (${qemu.binary})`,
      qemu === null ? 'red' : undefined,
    ],
    ['guests', `${guests.defined} defined, ${guests.running} running`],
    ['images', `${status.images}, ${formatBytes(status.storedBytes)} stored`],
    ['free', formatBytes(status.freeBytes)],
    ...readinessFields(status.readiness),
    ...bootFields(status),
    scrubField(status),
  ]);
}

interface SaveAllOptions extends MutationOptions {
  readonly budget?: number;
  readonly dryRun?: true;
  readonly forShutdown?: Scope;
}

async function saveAll(options: SaveAllOptions, command: Command): Promise<void> {
  const session = await openSession(command);
  const { client, output } = session;
  const request = { budgetSeconds: options.budget };
  if (options.forShutdown !== undefined) {
    // It brings the C library along, which no other command has a use for.
    const { endGuestsForShutdown } = await import('../host-shutdown.ts');
    await endGuestsForShutdown(client, output, { ...request, scope: options.forShutdown });
    return;
  }
  if (options.dryRun === true) {
    const plan = await client.planSaveAll(request);
    output.print(plan, () => renderSaveAllPlan(plan, output.width));
    return;
  }
  await mutate(session, options, {
    run: (waiting) => client.saveAll(request, waiting),
    text: renderGuestOutcomes,
  });
}

async function restoreAll(options: MutationOptions, command: Command): Promise<void> {
  const session = await openSession(command);
  await mutate(session, options, {
    run: (waiting) => session.client.restoreAll(waiting),
    text: renderGuestOutcomes,
  });
}

const OPERATION_COLUMNS: readonly Column[] = [
  { title: 'ID' },
  { title: 'WHAT' },
  { title: 'GUEST', flexible: true },
  { title: 'IMAGE', flexible: true },
  { title: 'STATE' },
  { title: 'STARTED', align: 'right', spare: true },
  { title: 'PHASE', flexible: true, spare: true },
];

async function operations(
  id: string | undefined,
  options: { cancel?: true },
  command: Command,
): Promise<void> {
  if (id === undefined && options.cancel === true) {
    throw new StasisError('invalid-request', 'which operation? stasis ops ID --cancel');
  }
  const session = await openSession(command);
  const { client, output } = session;
  if (id === undefined) {
    const all = await client.listOperations();
    output.print(all, () =>
      all.length === 0
        ? 'no operations'
        : renderTable(OPERATION_COLUMNS, all.map(operationRow), output.width),
    );
    return;
  }
  const operation = options.cancel === true ? await cancel(session, id) : await client.getOperation(id);
  output.print(operation, () => renderOperation(operation));
}

/** An operation that is asked to cancel has to undo what it did first: it has ended when it says so. */
async function cancel(session: Session, id: string): Promise<Operation> {
  const { operation } = await watched(session, (waiting) => session.client.undoOperation(id, waiting));
  return operation;
}

function operationRow(operation: Operation): Cell[] {
  const { bytesDone, bytesTotal } = operation;
  const running = operation.state === 'running';
  const percent = running && bytesTotal > 0 ? ` ${Math.floor((bytesDone / bytesTotal) * 100)} %` : '';
  return [
    operation.id,
    operation.kind,
    operation.guest,
    operation.image ?? '',
    { text: operation.state, style: styleOfState(running ? 'saving' : operation.state) },
    formatAge(operation.createdAt),
    running ? operation.phase + percent : (operation.error?.message ?? ''),
  ];
}

interface EventOptions {
  readonly follow?: true;
  readonly guest?: string;
  readonly limit?: number;
}

async function events(options: EventOptions, command: Command): Promise<void> {
  const { client, output } = await openSession(command);
  const { guest, limit = options.follow === undefined ? 100 : 10 } = options;
  const found = await client.listEvents({ limit, ...(guest === undefined ? {} : { guest }) });
  const past = found.toSorted((a, b) => a.id - b.id);
  if (options.follow === undefined) {
    output.print(past, () => past.map((event) => renderEvent(event, output.width)));
    return;
  }
  for (const event of past) printEvent(event, output);
  for await (const event of client.events({ guest, since: past.at(-1)?.id ?? 0 })) printEvent(event, output);
}

/** Events that are followed are documents of one line each, also on a terminal. */
function printEvent(event: Event, output: Output): void {
  output.lines(output.json ? JSON.stringify(event) : renderEvent(event, output.width));
}

function renderEvent(event: Event, width: number): string {
  const at = formatDate(event.at);
  return `${paint('dim', at)}  ${fitText(printable(event.message), Math.max(1, width - at.length - 2))}`;
}

type DoctorCheck = Doctor['checks'][number];

const CHECK_MARKS = { ok: '✔', degraded: '▲', missing: '✘' } as const satisfies Record<
  DoctorCheck['status'],
  string
>;

async function doctor(_options: object, command: Command): Promise<void> {
  const { client, output } = await openSession(command);
  const report = await client.doctor();
  output.print(report, () => [...report.checks.flatMap(renderCheck), '', summarize(report.checks)]);
}

/** Never cut to the terminal's width: a cure is there to be copied. */
function renderCheck(check: DoctorCheck): string[] {
  const mark = paint(styleOfState(check.status), CHECK_MARKS[check.status]);
  const cure = check.cure === null || check.status === 'ok' ? [] : check.cure.split('\n').map(printable);
  return [
    `${mark} ${paint('bold', printable(check.name))} ${paint('dim', `(${printable(check.serves)})`)}`,
    `    ${printable(check.message)}`,
    ...cure.map((line) => `    ${paint('yellow', '→')} ${line}`),
  ];
}

function summarize(checks: readonly DoctorCheck[]): string {
  const missing = checks.filter((check) => check.status === 'missing').length;
  const degraded = checks.filter((check) => check.status === 'degraded').length;
  if (missing + degraded === 0) return 'everything is there';
  return `${count(checks.length, 'check')}: ${missing} missing, ${degraded} could be better`;
}
