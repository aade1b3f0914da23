/** One operation as a person reads it. */
import type { Operation } from '../api/schemas.ts';
import { renderFields } from './fields.ts';
import { paint, styleOfState } from './style.ts';
import { printable } from './text-width.ts';
import { formatAge, formatBytes, formatDate, formatDuration } from './units.ts';

export function renderOperation(operation: Operation): string[] {
  const { bytesDone, bytesTotal, finishedAt } = operation;
  const running = operation.state === 'running';
  const startedMs = Date.parse(operation.createdAt);
  return [
    ...renderFields([
      ['operation', operation.id],
      ['what', operation.kind],
      ['guest', operation.guest],
      ['image', operation.image],
      ['state', operation.state, styleOfState(running ? 'saving' : operation.state)],
      ['phase', running ? operation.phase : undefined],
      [
        'progress',
        running && bytesTotal > 0 ? `${formatBytes(bytesDone)} of ${formatBytes(bytesTotal)}` : undefined,
      ],
      ['can be cancelled', running ? (operation.cancellable ? 'yes' : 'no') : undefined],
      ['started', `${formatDate(operation.createdAt)} (${formatAge(operation.createdAt)})`],
      ['took', finishedAt === null ? undefined : formatDuration(Date.parse(finishedAt) - startedMs)],
      ['error', operation.error?.message, 'red'],
      ...operation.warnings.map((warning) => ['warning', warning, 'yellow'] as const),
    ]),
    ...renderOutcomes(operation),
    ...operation.steps.map((step) => {
      const after = `+${formatDuration(Date.parse(step.at) - startedMs)}`;
      return `${paint('dim', after.padStart(12))}  ${printable(step.name)}`;
    }),
  ];
}

/** What was done for the guest besides the work itself, or could not be. */
export function renderOutcomes({ outcomes }: Operation): string[] {
  const styles = { done: 'dim', skipped: 'yellow', failed: 'red' } as const;
  return outcomes.map(
    ({ name, outcome, message }) =>
      `  ${paint(styles[outcome], `${name} ${outcome}`)}: ${printable(message)}`,
  );
}
