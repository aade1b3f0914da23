/**
 * A list that may be long, as a reply in pieces: it is never in memory as a whole, and others are answered between two
 * pieces. Like an event stream it takes over the reply, but only when its first piece is there: until then it can fail as any other.
 */
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { FastifyReply } from 'fastify';
import { errnoOf } from '../errors.ts';

/** @param pieces of the list, one after the other */
export async function sendLongList(
  reply: FastifyReply,
  pieces: AsyncGenerator<readonly object[], void, undefined>,
): Promise<never> {
  const first = await pieces.next();
  reply.hijack();
  const response = reply.raw;
  for (const [name, value] of Object.entries(reply.getHeaders()))
    if (value !== undefined) response.setHeader(name, value);
  response.writeHead(200, { 'content-type': 'application/json; charset=utf-8' });
  try {
    await pipeline(Readable.from(jsonOf(first.value ?? [], pieces)), response);
  } catch (error) {
    // The client sees the connection break, and asks again; one that has gone itself needs no answer.
    if (errnoOf(error) !== 'ERR_STREAM_PREMATURE_CLOSE')
      reply.request.log.error({ err: error, url: reply.request.url }, 'a list ended in the middle');
  }
  return HIJACKED;
}

async function* jsonOf(
  first: readonly object[],
  rest: AsyncGenerator<readonly object[], void, undefined>,
): AsyncGenerator<string, void, undefined> {
  let before = '[';
  const textOf = (piece: readonly object[]) => {
    if (piece.length === 0) return '';
    const text = before + JSON.stringify(piece).slice(1, -1);
    before = ',';
    return text;
  };
  yield textOf(first);
  for await (const piece of rest) yield textOf(piece);
  yield before === '[' ? '[]' : ']';
}

/** The reply was taken over: Fastify sends nothing of what the handler returns. */
// oxlint-disable-next-line typescript/no-unsafe-type-assertion
const HIJACKED = undefined as never;
