/** A storage system's own command line: programs that are run with a list of arguments, never through a shell. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import type Type from 'typebox';
import type { Static } from 'typebox';
import Value from 'typebox/value';
import { StasisError, errnoOf } from '../errors.ts';
import { throwIfAborted } from '../qemu/wait.ts';

/** Reports of thousands of volumes stay far below. */
const MAX_OUTPUT_BYTES = 64 << 20;
/** Of a report that can't be read, so much is told. */
const MAX_TOLD_CHARS = 1000;

/** What such programs say when there is no room, in all the words that they have for it. */
const NO_SPACE =
  /insufficient (free|suitable)|not enough free|out of (data|metadata) space|reached threshold|no space left|out of space/i;

/** What a program said that failed. */
export interface ToolFailure {
  readonly tool: string;
  readonly args: readonly string[];
  readonly desc: string;
}

/**
 * Runs a program to its end and returns what it printed. It is not stopped when the signal comes: killed in the middle
 * it may leave a device suspended. These programs are done in moments.
 * @throws StasisError `storage-failed` or `no-space` with the program's own words (`failureOf`), `cancelled` before it began
 */
export async function runTool(tool: string, args: readonly string[], signal?: AbortSignal): Promise<string> {
  throwIfAborted(signal, `${tool} ${args[0] ?? ''}`);
  try {
    const { stdout } = await promisify(execFile)(tool, args, {
      maxBuffer: MAX_OUTPUT_BYTES,
      env: { ...process.env, PATH: `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin`, LC_ALL: 'C' },
    });
    return stdout;
  } catch (error) {
    throw toolError(tool, args, error);
  }
}

/**
 * A program's report in JSON, of which only what is read is looked at.
 * @throws StasisError `storage-failed` when it is none, or another one than this version of Stasis knows
 */
export function readReport<T extends Type.TSchema>(tool: string, schema: T, text: string): Static<T> {
  const report = jsonIn(text);
  if (Value.Check(schema, report)) return report;
  throw new StasisError('storage-failed', `${tool} gave a report that Stasis can't read`, {
    details: { tool, report: text.slice(0, MAX_TOLD_CHARS) },
  });
}

function jsonIn(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined; // fits no schema
  }
}

function toolError(tool: string, args: readonly string[], cause: unknown): StasisError {
  const desc = errnoOf(cause) === 'ENOENT' ? 'it is not installed' : wordsOf(cause);
  const details: ToolFailure = { tool, args, desc };
  const code = NO_SPACE.test(desc) ? 'no-space' : 'storage-failed';
  return new StasisError(code, `${tool} ${args[0] ?? ''} failed: ${desc}`, {
    details: { ...details },
    cause,
  });
}

/** What it wrote to its standard error, without the warnings that it also gives when all is well. */
function wordsOf(cause: unknown): string {
  const stderr = cause instanceof Error && 'stderr' in cause ? String(cause.stderr) : '';
  const lines = stderr.split('\n').map((line) => line.trim());
  const words = lines.filter(
    (line) => line !== '' && !/^WARNING: .* (NOT backed up|exceeds the size)/.test(line),
  );
  return words.join('; ') || (cause instanceof Error ? cause.message : String(cause));
}

/** The program's own words, of an error of `runTool`'s. */
export function failureOf(error: unknown): string | undefined {
  const desc = error instanceof StasisError ? error.details?.['desc'] : undefined;
  return typeof desc === 'string' ? desc : undefined;
}
