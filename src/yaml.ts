/** YAML, and JSON which is a part of it, as people write it. */
import { LineCounter, parseDocument } from 'yaml';
import { messageOf, StasisError, type ErrorCode } from './errors.ts';

/**
 * One document as plain values.
 * @param source how the messages call the text
 * @param code of the error
 * @throws StasisError with line and column when it is none; also for an alias of nothing, and for more than there is a stack for
 */
export function parseYaml(text: string, source: string, code: ErrorCode): unknown {
  const lineCounter = new LineCounter();
  try {
    const document = parseDocument(text, { lineCounter, prettyErrors: false, logLevel: 'error' });
    const [error] = document.errors;
    if (error === undefined) return document.toJS();
    const { line, col: column } = lineCounter.linePos(error.pos[0]);
    throw new StasisError(code, `${source}:${line}:${column}: ${error.message}`, {
      details: { file: source, line, column },
    });
  } catch (cause) {
    if (cause instanceof StasisError) throw cause;
    throw new StasisError(code, `${source}: ${messageOf(cause)}`, { cause });
  }
}
