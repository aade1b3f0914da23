/** A guest's power buttons and its console: start, shutdown, stop, pause, resume, reset, console. */
import { InvalidArgumentError, type Command } from 'commander';
import type { Guest } from '../../api/schemas.ts';
import { attachConsole } from '../console.ts';
import { mutate, noWaitOption, type Mutation, type MutationOptions } from '../mutation.ts';
import { renderOutcomes } from '../operation-view.ts';
import { openSession, type Session } from '../session.ts';

export function register(program: Command): void {
  program
    .command('start')
    .summary('start a guest, from its default image when there is one')
    .description('Starts a guest: where it was, from its default image when it has one, else by booting it.')
    .argument('<guest>')
    .option('--fresh', 'boot it, and keep the default image')
    .addOption(noWaitOption())
    .addHelpText('after', '\nExamples:\n  $ stasis start web1\n  $ stasis start web1 --fresh')
    .action(start);

  program
    .command('shutdown')
    .summary('ask a guest to shut down')
    .description("Asks the guest's system to shut down, and waits until it has.")
    .argument('<guest>')
    .option('--timeout <seconds>', 'how long it may take', seconds)
    .addOption(noWaitOption())
    .addHelpText('after', '\nExample:\n  $ stasis shutdown web1 --timeout 120')
    .action(shutdown);

  const buttons = [
    ['stop', 'pull the plug', 'Ends a guest at once, without asking it: what it has not written is lost.'],
    ['pause', 'let a guest stand still', 'Lets a guest stand still; its memory stays where it is.'],
    ['resume', 'let a paused guest go on', 'Lets a paused guest go on.'],
    ['reset', 'press the reset button', 'Resets a guest as its reset button would.'],
  ] as const;
  for (const [name, summary, description] of buttons) {
    program
      .command(name)
      .summary(summary)
      .description(description)
      .argument('<guest>')
      .addOption(noWaitOption())
      .addHelpText('after', `\nExample:\n  $ stasis ${name} web1`)
      .action(async (guest: string, options: MutationOptions, command: Command) => {
        await act(
          command,
          options,
          ({ client }) =>
            (waiting) =>
              client[name](guest, waiting),
        );
      });
  }

  program
    .command('console')
    .summary("the guest's serial console; Ctrl-] leaves")
    .description(
      "Connects the terminal to the guest's serial console. Ctrl-] leaves; the guest doesn't notice.",
    )
    .argument('<guest>')
    .addHelpText(
      'after',
      '\nExamples:\n  $ stasis console web1\n  $ timeout 60 stasis console web1 </dev/null | tee boot.log',
    )
    .action(async (guest: string, _options: object, command: Command) => {
      await attachConsole(await openSession(command), guest);
    });
}

async function start(
  guest: string,
  options: MutationOptions & { fresh?: true },
  command: Command,
): Promise<void> {
  await act(
    command,
    options,
    ({ client }) =>
      (waiting) =>
        client.start(guest, { fresh: options.fresh }, waiting),
  );
}

async function shutdown(
  guest: string,
  options: MutationOptions & { timeout?: number },
  command: Command,
): Promise<void> {
  const request = { timeoutSeconds: options.timeout };
  await act(
    command,
    options,
    ({ client }) =>
      (waiting) =>
        client.shutdown(guest, request, waiting),
  );
}

async function act(
  command: Command,
  options: MutationOptions,
  runWith: (session: Session) => Mutation<Guest>['run'],
): Promise<void> {
  const session = await openSession(command);
  await mutate(session, options, {
    run: runWith(session),
    text: (guest, operation) => [`${guest.name} is ${guest.state}`, ...renderOutcomes(operation)],
  });
}

function seconds(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !(value > 0 && value <= 3600)) {
    throw new InvalidArgumentError('It is no number of seconds up to 3600.');
  }
  return value;
}
