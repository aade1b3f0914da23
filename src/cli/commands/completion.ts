/** Completion for the shell: commands and options from the program itself, names from a daemon that runs. */
import root from '@bomb.sh/tab';
import describeCommands from '@bomb.sh/tab/commander';
import { Argument, type Command } from 'commander';
import type { Guest, Image } from '../../api/schemas.ts';
import { buildProgramForCompletion } from '../program.ts';
import { clientWithoutStarting } from '../session.ts';
import { count, formatBytes } from '../units.ts';
import { howTaken } from '../tree.ts';

/** Somebody waits with a finger on the tab key. */
const PATIENCE_MS = 500;

export function register(program: Command): void {
  program
    .command('completion')
    .summary('print the completion script of a shell')
    .description('Prints the script that completes commands, options, guests and images in a shell.')
    .addArgument(new Argument('<shell>').choices(['bash', 'zsh', 'fish']))
    .addHelpText(
      'after',
      `
Examples:
  $ source <(stasis completion bash)
  $ stasis completion fish > ~/.config/fish/completions/stasis.fish

In bash it needs the package bash-completion.`,
    )
    .action((shell: string) => root.setup('stasis', 'stasis', shell));

  // What the scripts call: stasis complete -- WORD…
  program.command('complete', { hidden: true }).argument('[words...]').action(complete);
}

async function complete(words: string[]): Promise<void> {
  describeCommands(await buildProgramForCompletion(), { completionCommandName: 'completion' });
  const { guests, images } = await knownNames(words);
  for (const command of root.commands.values()) {
    command.option('json', 'one JSON document on stdout');
    for (const argument of command.arguments.values()) {
      if (argument.name === 'guest') {
        argument.handler = (suggest) => {
          for (const guest of guests) suggest(guest.name, `${guest.state}, ${count(guest.images, 'image')}`);
        };
      } else if (argument.name === 'image') {
        argument.handler = (suggest) => {
          for (const image of images)
            suggest(image.name, `${howTaken(image)}, ${formatBytes(image.storedBytes)}`);
        };
      } else if (argument.name === 'schedule') {
        argument.handler = (suggest) => {
          for (const { name, schedules } of guests)
            if (words.includes(name)) for (const schedule of schedules) suggest(schedule.name, schedule.cron);
        };
      }
    }
  }
  root.parse(words);
}

/** The guests, and the images of the one that the words name. */
async function knownNames(words: readonly string[]): Promise<{ guests: Guest[]; images: Image[] }> {
  const client = clientWithoutStarting(undefined);
  const signal = AbortSignal.timeout(PATIENCE_MS);
  try {
    const guests = await client.listGuests({ signal });
    const named = guests.find((guest) => words.slice(1, -1).includes(guest.name));
    const images = named === undefined ? [] : await client.listSaveImages(named.name, { signal });
    return { guests, images };
  } catch {
    // No daemon, no names: an error message in the middle of a half-typed line would help nobody.
    return { guests: [], images: [] };
  }
}
