/**
 * Server-sent events as the HTML standard defines them: lines end in CR, LF or both; a line is a comment, a
 * field, or the empty line that ends a message; a message without data is none; a message that the end of the
 * stream cuts off is dropped.
 */
import { StasisError } from '../errors.ts';

export interface SseMessage {
  /** what the stream calls it; `message` when it doesn't say */
  readonly event: string;
  readonly data: string;
  /** the last `id` seen so far: where to go on after a break */
  readonly lastEventId: string;
}

/** A message is one JSON document of ours; a stream that never ends a line must not fill the memory. */
const LARGEST_MESSAGE_CHARS = 64 * 1024 * 1024;

/** The parser proper: text in, in pieces cut anywhere; complete messages out. */
export class SseParser {
  #partialLine = '';
  #lineFeedBelongsToLast = false;
  #atStart = true;
  #event = '';
  #data: string[] = [];
  #dataChars = 0;
  #lastEventId = '';

  /** @throws `internal` when a single message exceeds 64 Mi characters */
  push(chunk: string): SseMessage[] {
    const text = this.#withoutByteOrderMark(this.#lineFeedBelongsToLast ? chunk.replace(/^\n/, '') : chunk);
    if (chunk !== '') this.#lineFeedBelongsToLast = chunk.endsWith('\r');
    const [first = '', ...rest] = text.split(/\r\n|\r|\n/);
    const lines = [this.#partialLine + first, ...rest];
    this.#partialLine = lines.pop() ?? '';
    const messages = lines.flatMap((line) => this.#line(line) ?? []);
    if (this.#dataChars + this.#partialLine.length > LARGEST_MESSAGE_CHARS) {
      throw new StasisError('internal', 'a message of the event stream is too large');
    }
    return messages;
  }

  #withoutByteOrderMark(text: string): string {
    if (!this.#atStart || text === '') return text;
    this.#atStart = false;
    return text.startsWith('\uFEFF') ? text.slice(1) : text;
  }

  #line(line: string): SseMessage | undefined {
    if (line === '') return this.#dispatch();
    const colon = line.indexOf(':');
    if (colon === 0) return undefined; // a comment
    const field = colon === -1 ? line : line.slice(0, colon);
    const value = colon === -1 ? '' : line.slice(colon + 1).replace(/^ /, '');
    if (field === 'event') {
      this.#event = value;
    } else if (field === 'data') {
      this.#data.push(value);
      this.#dataChars += value.length + 1;
    } else if (field === 'id' && !value.includes('\0')) {
      this.#lastEventId = value;
    }
    return undefined; // unknown fields are ignored; `retry` too: our callers have their own patience
  }

  #dispatch(): SseMessage | undefined {
    const [event, data] = [this.#event, this.#data];
    this.#event = '';
    this.#data = [];
    this.#dataChars = 0;
    if (data.length === 0) return undefined;
    return { event: event || 'message', data: data.join('\n'), lastEventId: this.#lastEventId };
  }
}

/** The messages of a byte stream, until it ends. Leaving the loop closes the stream. */
export async function* readSse(body: AsyncIterable<Uint8Array>): AsyncGenerator<SseMessage, void, undefined> {
  // The parser itself drops the byte order mark, so the decoder must not do it a second time.
  const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
  const parser = new SseParser();
  for await (const chunk of body) yield* parser.push(decoder.decode(chunk, { stream: true }));
}
