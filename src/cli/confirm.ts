/** A question before something is given up. Only asked where somebody can answer it. */
import { once } from 'node:events';
import { createInterface } from 'node:readline/promises';
import { paint } from './style.ts';

/** Whether a person sits at both ends: one who reads the question and one who types the answer. */
export function canAsk(): boolean {
  return process.stdin.isTTY && process.stderr.isTTY;
}

/** Asks on stderr, so that stdout stays the command's. Anything but a yes is a no, ^C and ^D too. */
export async function confirm(question: string): Promise<boolean> {
  using terminal = createInterface({ input: process.stdin, output: process.stderr });
  const closed = once(terminal, 'close').then(() => undefined);
  const answered = terminal.question(`${question} ${paint('bold', '[y/N]', process.stderr)} `);
  // When it is closed, the question is never answered or rejects, as the runtime likes: `closed` tells anyway.
  const answer = await Promise.race([answered.catch(() => undefined), closed]);
  if (answer === undefined) process.stderr.write('\n'); // the cursor still stands behind the question
  return /^(y|yes)$/i.test(answer?.trim() ?? '');
}
