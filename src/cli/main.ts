/** The command line: from arguments to an exit status. */
import { CommanderError } from 'commander';
import { StasisError } from '../errors.ts';
import { Output } from './output.ts';
import { buildProgram } from './program.ts';
import { disableColours } from './style.ts';

/**
 * Runs one command and sets `process.exitCode`: 0 done, 1 failed, 2 wrong usage, 3 no such guest or image,
 * 4 not possible in this state or on this host.
 *
 * @param argv the arguments, without interpreter and script
 */
export async function main(argv: string[]): Promise<void> {
  process.stdout.on('error', ignoreClosedPipe);
  if (argv.includes('--no-color')) disableColours();
  const json = argv.includes('--json');
  try {
    const program = await buildProgram(argv, { json });
    await program.parseAsync(argv, { from: 'user' });
  } catch (error) {
    process.exitCode = report(error, new Output(json));
  }
}

/** Tells the error, if it is one, and returns the exit status. */
function report(error: unknown, output: Output): number {
  if (error instanceof CommanderError) {
    if (error.exitCode === 0) return 0; // --help and --version end this way
    const usage = new StasisError('invalid-request', usageMessage(error));
    // As text, commander has already said it, with the usage or a suggestion below.
    if (output.json) output.error(usage);
    return usage.exitStatus;
  }
  const failure = StasisError.from(error);
  output.error(failure);
  if (failure.code === 'internal' && process.env['STASIS_DEBUG'] !== undefined) console.error(error);
  return failure.exitStatus;
}

function usageMessage(error: CommanderError): string {
  if (error.code === 'commander.help') return 'a command is missing';
  return error.message.replace(/^error: /, '').replaceAll('\n', ' ');
}

/** `stasis images | head` ends when head has seen enough: that is no failure of ours. */
function ignoreClosedPipe(error: NodeJS.ErrnoException): void {
  if (error.code === 'EPIPE') process.exit();
  throw error;
}
