/**
 * All commands, each with its help. A command line uses one of them and should be quick, so a group's module,
 * and what it imports, is only loaded when one of its commands is asked for, or when all are listed.
 */
import { Command } from 'commander';
import { VERSION } from '../version.ts';

interface Group {
  readonly heading: string;
  readonly commands: readonly string[];
  readonly load: () => Promise<{ register: (program: Command) => void }>;
}

/** In the order of the help. */
const GROUPS: readonly Group[] = [
  {
    heading: 'Guests:',
    commands: ['define', 'undefine', 'guests', 'show', 'policy', 'label', 'qemu'],
    load: () => import('./commands/guests.ts'),
  },
  {
    heading: 'Guests:',
    commands: ['import'],
    load: () => import('./commands/import.ts'),
  },
  {
    heading: 'Running them:',
    commands: ['start', 'shutdown', 'stop', 'pause', 'resume', 'reset', 'console'],
    load: () => import('./commands/running.ts'),
  },
  {
    heading: 'Save images:',
    commands: ['save', 'images', 'info', 'restore', 'delete'],
    load: () => import('./commands/images.ts'),
  },
  {
    heading: 'Save images:',
    commands: ['verify'],
    load: () => import('./commands/verify.ts'),
  },
  {
    heading: 'Save images:',
    commands: ['schedule', 'retention', 'protect', 'unprotect'],
    load: () => import('./commands/schedules.ts'),
  },
  {
    heading: 'Disks:',
    commands: ['disk', 'export', 'mount'],
    load: () => import('./commands/disks.ts'),
  },
  {
    heading: 'The host and its daemon:',
    commands: ['host', 'ops', 'events', 'doctor', 'daemon'],
    load: () => import('./commands/host.ts'),
  },
  {
    heading: 'The host and its daemon:',
    commands: ['audit', 'metrics'],
    load: () => import('./commands/observe.ts'),
  },
  {
    heading: 'The host and its daemon:',
    commands: ['catalog'],
    load: () => import('./commands/catalog.ts'),
  },
  {
    heading: 'The host and its daemon:',
    commands: ['web'],
    load: () => import('./commands/web.ts'),
  },
  {
    heading: 'The host and its daemon:',
    commands: ['remote', 'login', 'logout'],
    load: () => import('./commands/remote.ts'),
  },
  {
    heading: 'Help:',
    commands: ['completion', 'complete'],
    load: () => import('./commands/completion.ts'),
  },
];

const HELP_AFTER = `
Exit status: 0 done, 1 failed, 2 wrong usage, 3 no such guest or image, 4 not possible in this state or on this host.

Environment: STASIS_HOME keeps everything under one directory; STASIS_CONNECT is the default of --connect.

Examples:
  $ stasis define web1.yaml && stasis start web1
  $ stasis save web1 before-update --live
  $ stasis restore web1 before-update`;

/**
 * The program with the command that `argv` begins with, or, when that isn't clear, with all of them.
 *
 * @param options.json usage errors are not told in text
 */
export async function buildProgram(argv: readonly string[], options: { json: boolean }): Promise<Command> {
  const program = newProgram(options.json);
  const wanted = GROUPS.filter((group) => group.commands.includes(argv[0] ?? ''));
  for (const { heading, load } of wanted.length === 0 ? GROUPS : wanted) {
    program.commandsGroup(heading);
    (await load()).register(program);
  }
  return program;
}

/** All commands but those of the shell, for completion to look at. */
export async function buildProgramForCompletion(): Promise<Command> {
  const program = newProgram(true);
  for (const { commands, load } of GROUPS)
    if (!commands.includes('completion')) (await load()).register(program);
  return program;
}

function newProgram(json: boolean): Command {
  const program = new Command('stasis')
    .description(
      'Managed, named save images for QEMU/KVM guests: memory, devices and all disks at one instant.',
    )
    .version(VERSION, '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print help')
    .addHelpCommand(
      new Command('help').argument('[command]').description('print help of a command').helpGroup('Help:'),
    )
    .option('--json', 'one JSON document on stdout, errors as JSON on stderr')
    .option(
      '--connect <url>',
      "the daemon: unix:PATH or https://HOST (default: your own; root's is the system's where that is installed)",
    )
    .option('--no-color', 'no colours')
    .configureHelp({ showGlobalOptions: true })
    .showSuggestionAfterError()
    .exitOverride()
    .addHelpText('after', HELP_AFTER);
  return program.configureOutput({
    outputError: (text, write) => {
      if (!json) write(text.replace(/^error: /, 'stasis: '));
    },
    // The help that commander prints when a command is missing goes to stderr: with --json that is for the error.
    writeErr: (text) => {
      if (!json) process.stderr.write(text);
    },
  });
}
