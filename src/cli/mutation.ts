/** What all commands that change something have in common: waiting or not, progress, ^C, warnings, the result. */
import { Option } from 'commander';
import type { Operation } from '../api/schemas.ts';
import type { NotWaiting, Outcome, Waiting } from '../client/requests.ts';
import { StasisError } from '../errors.ts';
import { Interrupt } from './interrupt.ts';
import { Progress } from './progress.ts';
import type { Session } from './session.ts';

export interface MutationOptions {
  readonly wait: boolean;
}

export interface Mutation<Result> {
  /** begins it with the given options: `(options) => client.start(guest, {}, options)` */
  readonly run: <O extends Waiting | NotWaiting>(options: O) => Promise<Outcome<O, Result>>;
  /** the document for `--json`; default: the result */
  readonly document?: (result: Result, operation: Operation) => unknown;
  readonly text: (result: Result, operation: Operation) => string | readonly string[];
}

/** The option that every such command has. */
export function noWaitOption(): Option {
  return new Option('--no-wait', "print the operation's id and leave the work to the daemon");
}

/**
 * Runs a mutation and prints its result, or without waiting the operation's id.
 *
 * @throws the operation's error; `cancelled` when a second ^C left it
 */
export async function mutate<Result>(
  session: Session,
  options: MutationOptions,
  mutation: Mutation<Result>,
): Promise<void> {
  const { output } = session;
  if (!options.wait) {
    const operation = await mutation.run({ wait: false });
    output.print(operation, () => operation.id);
    return;
  }
  const { result, operation } = await watched(session, (waiting) => mutation.run(waiting));
  output.print(mutation.document?.(result, operation) ?? result, () => mutation.text(result, operation));
}

/** Runs `work` with a progress bar, warnings as they come and ^C bound to its operation, whose end it resolves with. */
export async function watched<Result>(
  { client, output }: Session,
  work: (waiting: Waiting) => Promise<Result>,
): Promise<{ result: Result; operation: Operation }> {
  let last: Operation | undefined;
  using progress = new Progress();
  using interrupt = new Interrupt(client, (text) => {
    progress.clear();
    output.note(text);
  });
  const onProgress = (operation: Operation) => {
    const warnings = operation.warnings.slice(last?.warnings.length ?? 0);
    if (warnings.length > 0) progress.clear();
    for (const warning of warnings) output.note(`warning: ${warning}`);
    last = operation;
    interrupt.update(operation);
    progress.update(operation);
  };
  const result = await work({ onProgress, signal: interrupt.signal });
  if (last === undefined) throw new StasisError('internal', 'the daemon told nothing about the operation');
  return { result, operation: last };
}
