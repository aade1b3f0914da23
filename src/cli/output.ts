/** What a command says: a document on stdout for programs, or text for people; everything else on stderr. */
import type { StasisError } from '../errors.ts';
import { paint } from './style.ts';
import { printable } from './text-width.ts';

export class Output {
  readonly json: boolean;

  constructor(json: boolean) {
    this.json = json;
  }

  /** Prints the one document of the command, or what `text` makes of it for a person. */
  print(document: unknown, text: () => string | readonly string[]): void {
    if (this.json) this.document(document);
    else this.lines(text());
  }

  document(document: unknown): void {
    process.stdout.write(`${JSON.stringify(document, null, process.stdout.isTTY ? 2 : 0)}\n`);
  }

  lines(lines: string | readonly string[]): void {
    for (const line of typeof lines === 'string' ? [lines] : lines) process.stdout.write(`${line}\n`);
  }

  /** A remark beside the result, for people: a warning, what ^C did. With `--json`, stderr is for the error alone. */
  note(text: string): void {
    if (this.json) return;
    process.stderr.write(`stasis: ${printable(text)}\n`);
  }

  error(error: StasisError): void {
    if (this.json) {
      process.stderr.write(`${JSON.stringify({ error })}\n`);
      return;
    }
    // A message may have lines of its own, such as the last ones of a log.
    const [first = '', ...more] = error.message.split('\n').map(printable);
    process.stderr.write(`${paint('red', 'stasis:', process.stderr)} ${first}\n`);
    for (const line of more) process.stderr.write(`  ${line}\n`);
    const hint = error.details?.['hint'];
    if (typeof hint === 'string')
      process.stderr.write(`${paint('dim', '  hint:', process.stderr)} ${printable(hint)}\n`);
  }

  /** Columns of the terminal; a pipe has no end. */
  get width(): number {
    return process.stdout.isTTY ? process.stdout.columns || 80 : Number.POSITIVE_INFINITY;
  }
}
