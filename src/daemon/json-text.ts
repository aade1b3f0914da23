/**
 * JSON that is there as text already, and long lists of it, as replies. A long list goes out in pieces: it is never in memory as a
 * whole, and others are answered between two pieces. Like an event stream it takes over the reply, but only when its first piece is
 * there: until then it can fail as any other.
 */
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { FastifyReply } from 'fastify';
import { errnoOf } from '../errors.ts';
import { stillness } from '../stillness.ts';

const JSON_TYPE = 'application/json; charset=utf-8';

/** @param text of a document, as its route describes it */
export function sendText(reply: FastifyReply, text: string): never {
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- to Fastify a reply stands for what was sent with it
  return reply.type(JSON_TYPE).send(text) as never;
}

/** @param pieces of the list, one after the other: each the text of a list */
export async function sendLongList(
  reply: FastifyReply,
  pieces: AsyncGenerator<string, void, undefined>,
): Promise<never> {
  const first = await pieces.next();
  reply.hijack();
  const response = reply.raw;
  for (const [name, value] of Object.entries(reply.getHeaders()))
    if (value !== undefined) response.setHeader(name, value);
  response.writeHead(200, { 'content-type': JSON_TYPE });
  try {
    await pipeline(Readable.from(joined(first.value ?? '[]', pieces)), response);
  } catch (error) {
    // The client sees the connection break, and asks again; one that has gone itself needs no answer.
    if (errnoOf(error) !== 'ERR_STREAM_PREMATURE_CLOSE')
      reply.request.log.error({ err: error, url: reply.request.url }, 'a list ended in the middle');
  }
  return HIJACKED;
}

async function* joined(
  first: string,
  rest: AsyncGenerator<string, void, undefined>,
): AsyncGenerator<string, void, undefined> {
  let before = '[';
  const itemsOf = (piece: string) => {
    if (piece === '[]') return '';
    const text = before + piece.slice(1, -1);
    before = ',';
    return text;
  };
  yield itemsOf(first);
  for await (const piece of rest) {
    yield itemsOf(piece);
    await stillness.turn();
  }
  yield before === '[' ? '[]' : ']';
}

/** The reply was taken over: Fastify sends nothing of what the handler returns. */
// oxlint-disable-next-line typescript/no-unsafe-type-assertion
const HIJACKED = undefined as never;
