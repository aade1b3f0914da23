/** For those who look after the host: who did what, and figures for Prometheus. */
import { InvalidArgumentError, type Command } from 'commander';
import type { AuditEntry, AuditVerdict } from '../../api/schemas.ts';
import { StasisError } from '../../errors.ts';
import { positiveNumber } from '../arguments.ts';
import type { Output } from '../output.ts';
import { openSession } from '../session.ts';
import { paint } from '../style.ts';
import { renderTable, type Cell, type Column } from '../table.ts';
import { printable } from '../text-width.ts';
import { describeCaller, formatDate } from '../units.ts';

export function register(program: Command): void {
  program
    .command('audit')
    .summary('who did what')
    .description(
      'Prints the audit trail, oldest first: every call that was to change something, also refused ones, by whom, and the outcome of every operation.',
    )
    .option('--follow', 'go on as it grows; with --json one document per line')
    .option('--guest <guest>', 'only what is about one guest')
    .option('--since <when>', 'only what is newer: 90m, 24h, 7d, or a date', moment)
    .option('--limit <n>', 'how many at most', positiveNumber)
    .option('--verify', 'whether anything was changed, taken out or put in; status 1 when it was')
    .option('--expect <hash>', 'with --verify: a newest hash of before, which must still be in the trail')
    .addHelpText(
      'after',
      '\nExamples:\n  $ stasis audit --guest web1 --since 24h\n  $ stasis audit --verify --expect "$(cat hash-of-last-week)"',
    )
    .action(audit);

  program
    .command('metrics')
    .summary("metrics in Prometheus' text format")
    .description(
      "Prints the metrics that GET /metrics has: for node_exporter's textfile collector, or to look at.",
    )
    .addHelpText(
      'after',
      '\nExample:\n  $ stasis metrics > /var/lib/node_exporter/stasis.prom.new && mv /var/lib/node_exporter/stasis.prom.new /var/lib/node_exporter/stasis.prom',
    )
    .action(metrics);
}

interface AuditOptions {
  readonly follow?: true;
  readonly guest?: string;
  readonly since?: string;
  readonly limit?: number;
  readonly verify?: true;
  readonly expect?: string;
}

async function audit(options: AuditOptions, command: Command): Promise<void> {
  const { follow, guest, since, verify, expect } = options;
  if (expect !== undefined && verify === undefined)
    throw new StasisError('invalid-request', '--expect belongs to --verify');
  const { client, output } = await openSession(command);
  if (verify === true) return tellVerdict(await client.verifyAudit({ expect }), output);
  const past = await client.listAudit({ guest, since, limit: options.limit ?? (follow ? 10 : 100) });
  if (follow === undefined) {
    output.print(past, () => renderAudit(past, output.width));
    return;
  }
  for (const entry of past) printEntry(entry, output);
  for await (const entry of client.followAudit({ guest, since, after: past.at(-1)?.id }))
    printEntry(entry, output);
}

function tellVerdict(verdict: AuditVerdict, output: Output): void {
  const { problem, entries, last } = verdict;
  output.print(verdict, () => [
    problem === null
      ? paint('green', `the trail is as it was written: ${entries} entries`)
      : paint('red', problem),
    ...(last === null
      ? []
      : [`newest ${problem === null ? '' : 'good '}entry: ${last.id}, hash ${last.hash}`]),
  ]);
  if (problem !== null) process.exitCode = 1;
}

const COLUMNS: readonly Column[] = [
  { title: 'WHEN' },
  { title: 'WHO', flexible: true },
  { title: 'WHAT', flexible: true },
  { title: 'GUEST', flexible: true },
  { title: 'IMAGE', flexible: true, spare: true },
  { title: 'OUTCOME' },
  { title: 'OPERATION', spare: true },
];

function renderAudit(entries: readonly AuditEntry[], width: number): string[] {
  return renderTable(
    COLUMNS,
    entries.map((entry): Cell[] => [
      formatDate(entry.at),
      describeCaller(entry.caller),
      entry.action,
      entry.guest ?? '',
      entry.image ?? '',
      entry.message === null || entry.kind === 'trim' ? entry.outcome : { text: entry.outcome, style: 'red' },
      entry.operation ?? '',
    ]),
    width,
  );
}

/** Entries that are followed are documents of one line each. */
function printEntry(entry: AuditEntry, output: Output): void {
  const { at, caller, action, guest, image, outcome } = entry;
  const about = [guest, image].filter((name) => name !== null).join(' / ');
  const text = `${describeCaller(caller)}  ${action}  ${about}  ${outcome}`;
  output.lines(output.json ? JSON.stringify(entry) : `${paint('dim', formatDate(at))}  ${printable(text)}`);
}

async function metrics(_options: object, command: Command): Promise<void> {
  const { client, output } = await openSession(command);
  const text = await client.metrics();
  output.print({ text }, () => text.trimEnd());
}

const AGO_MS: Readonly<Record<string, number>> = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** A moment as the API wants it. */
function moment(text: string): string {
  const [, amount, unit = ''] = /^(\d+)([smhd])$/.exec(text) ?? [];
  const atMs = amount === undefined ? Date.parse(text) : Date.now() - Number(amount) * (AGO_MS[unit] ?? 0);
  if (Number.isNaN(atMs)) throw new InvalidArgumentError('Write it like 90m, 24h, 7d or 2026-01-31.');
  return new Date(atMs).toISOString();
}
