/**
 * One process for many commands, one after the other: what each prints goes nowhere, and what it failed of is told to the
 * parent. To start a process for each would cost more than what they do.
 */
import { buildProgram } from '../../src/cli/program.ts';
import { StasisError, type ErrorCode } from '../../src/errors.ts';

process.on('message', (argv: string[]) => void run(argv).then((code) => process.send?.({ code })));

async function run(argv: readonly string[]): Promise<ErrorCode | undefined> {
  try {
    const program = await buildProgram(argv, { json: true });
    await program.parseAsync([...argv], { from: 'user' });
    return undefined;
  } catch (error) {
    return StasisError.from(error).code;
  }
}
