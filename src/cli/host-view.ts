/** Boots and shutdowns of the host as a person reads them. */
import type { HostStatus, Outcome, SaveAllPlan } from '../api/schemas.ts';
import type { Field } from './fields.ts';
import { paint } from './style.ts';
import { renderTable, type Column } from './table.ts';
import { printable } from './text-width.ts';
import { formatAge, formatBytes, formatDate, formatDuration } from './units.ts';

const AFTER = {
  first: 'the first that is known',
  clean: 'after a clean shutdown',
  crash: 'after a crash',
} as const satisfies Record<HostStatus['boot']['after'], string>;

/** Whether the daemon can do its work, and why not. */
export function readinessFields({ ready, reasons, remarks }: HostStatus['readiness']): Field[] {
  return [
    ['ready', ready ? 'yes' : 'no', ready ? undefined : 'red'],
    ...reasons.map((reason): Field => ['', reason, 'red']),
    ...remarks.map((remark): Field => ['', remark, 'yellow']),
  ];
}

/** The lines about it in `host status`. */
export function bootFields({ boot, shutdown }: HostStatus): Field[] {
  const ran = boot.after === 'crash' && boot.ran.length > 0 ? `; ${boot.ran.join(', ')} ran` : '';
  const unsettled = boot.settledAt === null ? '; guests are still being started' : '';
  return [
    [
      'host boot',
      `${AFTER[boot.after]}${ran}, seen ${formatDate(boot.seenAt)} (${formatAge(boot.seenAt)})${unsettled}`,
      boot.after === 'crash' ? 'yellow' : undefined,
    ],
    ...boot.guests.map((outcome) => outcomeField('', outcome)),
    [
      'last shutdown',
      shutdown === null
        ? undefined
        : `${formatDate(shutdown.at)} (${formatAge(shutdown.at)})${shutdown.clean ? '' : ', not all guests were ended'}`,
    ],
    ...(shutdown?.guests ?? []).map((outcome) => outcomeField('', outcome)),
  ];
}

/** … and the line about the walks through all images. */
export function scrubField({ scrub: { schedule, nextAt, last } }: HostStatus): Field {
  const next =
    schedule === null ? 'off' : nextAt === null ? `${schedule}: never due` : `next ${formatDate(nextAt)}`;
  if (last === null) return ['scrub', next];
  const { startedAt, finishedAt, verified, damaged, skipped } = last;
  const when =
    finishedAt === null
      ? `under way since ${formatDate(startedAt)}`
      : `last ${formatDate(finishedAt)} (${formatAge(finishedAt)})`;
  const facts = [
    `${verified} sound`,
    ...(damaged.length === 0 ? [] : [`damaged: ${damaged.join(', ')}`]),
    ...(skipped.length === 0 ? [] : [`${skipped.length} not looked at`]),
  ];
  return ['scrub', `${when}: ${facts.join(', ')}; ${next}`, damaged.length === 0 ? undefined : 'red'];
}

function outcomeField(name: string, outcome: Outcome): Field {
  return [name, describeOutcome(outcome), outcome.outcome === 'failed' ? 'red' : undefined];
}

function describeOutcome({ name, message, tookMs }: Outcome): string {
  return `${name}: ${message}${tookMs === undefined ? '' : ` (${formatDuration(tookMs)})`}`;
}

/** How it went for each guest, one line each. */
export function renderGuestOutcomes(outcomes: readonly Outcome[]): string[] {
  const styles = { done: 'green', skipped: 'dim', failed: 'red' } as const;
  return outcomes.map((outcome) => paint(styles[outcome.outcome], printable(describeOutcome(outcome))));
}

const PLAN_COLUMNS: readonly Column[] = [
  { title: 'GUEST' },
  { title: 'POLICY', spare: true },
  { title: 'ACTION' },
  { title: 'BYTES', align: 'right', spare: true },
  { title: 'ENDS AFTER', align: 'right' },
  { title: 'WHY', flexible: true },
];

/** What `host save-all` would do. */
export function renderSaveAllPlan(plan: SaveAllPlan, width: number): string[] {
  const budget = plan.budgetSeconds === null ? 'no budget' : `a budget of ${plan.budgetSeconds} s`;
  const rows = plan.guests.map((guest) => [
    guest.guest,
    guest.wanted,
    guest.action,
    guest.bytes === 0 ? '' : formatBytes(guest.bytes),
    guest.endsAfterSeconds === null ? '' : formatDuration(guest.endsAfterSeconds * 1000),
    guest.why,
  ]);
  return [
    `${budget}, ${plan.parallel} saves at once, ${formatBytes(plan.bytesPerSecond)}/s for all of them: ${plan.basis}, less a fifth`,
    ...(rows.length === 0 ? ['no guests'] : ['', ...renderTable(PLAN_COLUMNS, rows, width)]),
  ];
}
