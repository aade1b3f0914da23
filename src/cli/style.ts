/** Colours: few, and only where somebody looks. `NO_COLOR`, `--no-color` and a pipe turn them off. */
import { styleText } from 'node:util';

export type Style = Parameters<typeof styleText>[0];

/** `text` in a style, if `stream` is a terminal that wants it. */
export function paint(style: Style, text: string, stream: NodeJS.WriteStream = process.stdout): string {
  return styleText(style, text, { stream });
}

/** Obeys `--no-color`, for this process and the ones it starts. */
export function disableColours(): void {
  delete process.env['FORCE_COLOR'];
  process.env['NO_COLOR'] = '1';
}

/** The colour that says how a guest, an image or an operation is doing. */
export function styleOfState(state: string): Style {
  if (['running', 'ready', 'done', 'ok'].includes(state)) return 'green';
  if (['paused', 'saving', 'restoring', 'creating', 'deleting', 'degraded'].includes(state)) return 'yellow';
  if (['crashed', 'broken', 'failed', 'missing'].includes(state)) return 'red';
  return 'dim';
}
