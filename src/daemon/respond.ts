/**
 * How a mutating request answers: 202 with the operation, or, for a client that accepts an event stream, the
 * operation on every change until it ends, so that a command costs one request.
 */
import type { FastifyReply } from 'fastify';
import type { Operation, OperationKind } from '../api/schemas.ts';
import { findOperation, operationNotFound, type OperationRecord } from '../catalog/operations.ts';
import type { Subject } from '../operations/procedure.ts';
import type { Procedure } from '../operations/procedure.ts';
import { getGuest } from '../catalog/guests.ts';
import { recordCall } from './audit-calls.ts';
import { callerOf } from './caller.ts';
import { EventStream } from './event-stream.ts';
import { operationSummary, operationView, type ViewContext } from './views.ts';

/** At most so many progress messages a second: nobody reads faster. */
const PROGRESS_INTERVAL_MS = 100;

/** Plans and starts an operation, then answers as the client wants. */
export async function submit<Args, Plan>(
  context: ViewContext,
  reply: FastifyReply,
  request: { kind: OperationKind; procedure: Procedure<Args, Plan>; subject: Subject; args: Args },
): Promise<Operation> {
  const caller = JSON.stringify(await callerOf(reply.request.raw));
  const tag = await context.repeats.tagOf(reply.request);
  const { id } = await context.engine.submit(request.procedure, { ...request, caller, request: tag });
  if (tag !== undefined) context.repeats.isRecorded(tag);
  const { guestName, image } = context.engine.live(id)?.record ?? request.subject;
  await recordCall(context, reply.request, {
    ...{ outcome: 'accepted', operation: id, guest: guestName, image },
  });
  return answerWith(context, reply, id);
}

/** An operation as the answer to a request for it. */
export async function answerWith(context: ViewContext, reply: FastifyReply, id: string): Promise<Operation> {
  void reply.header('location', `/v1/operations/${id}`);
  if (acceptsStream(reply)) return streamOperation(context, reply, id);
  void reply.status(202);
  return currentView(context, id);
}

/** @throws StasisError `guest-not-found` */
export async function subjectOf(
  context: ViewContext,
  guest: string,
  image: string | null = null,
): Promise<Subject> {
  const record = await getGuest(context.host.catalog, guest);
  return { guest: record.uuid, guestName: record.name, image };
}

export function acceptsStream(reply: FastifyReply): boolean {
  return reply.request.headers.accept?.includes('text/event-stream') ?? false;
}

/** @throws StasisError `operation-not-found` */
export async function currentView(context: ViewContext, id: string): Promise<Operation> {
  const live = context.engine.live(id);
  if (live !== undefined && live.record.state === 'running') return operationSummary(live.record, live);
  const record = live?.record ?? (await findOperation(context.host.catalog, id));
  if (record === undefined) throw operationNotFound(id);
  return operationView(context, record, live);
}

/** Sends the operation now, on every change, and at its end with its result; then closes. */
export async function streamOperation(context: ViewContext, reply: FastifyReply, id: string): Promise<never> {
  // An operation that isn't there is still answered as an error.
  const first = await currentView(context, id);
  using stream = new EventStream(reply);
  stream.send('operation', first);
  if (first.state !== 'running') return HIJACKED;
  const ended = Promise.withResolvers<OperationRecord | undefined>();
  stream.signal.addEventListener('abort', () => ended.resolve(undefined));
  let lastSentMs = 0;
  let lastPhase = first.phase;
  const unlisten = context.engine.listen(id, (live) => {
    if (live.record.state !== 'running') return ended.resolve(live.record);
    const summary = operationSummary(live.record, live);
    if (summary.phase === lastPhase && Date.now() - lastSentMs < PROGRESS_INTERVAL_MS) return;
    lastSentMs = Date.now();
    lastPhase = summary.phase;
    stream.send('operation', summary);
  });
  try {
    // It may have ended between the first look and the listening.
    const record = context.engine.live(id) === undefined ? undefined : await ended.promise;
    stream.send(
      'operation',
      record === undefined ? await currentView(context, id) : await operationView(context, record),
    );
  } finally {
    unlisten();
  }
  return HIJACKED;
}

/** The reply was taken over: Fastify sends nothing of what the handler returns. */
// oxlint-disable-next-line typescript/no-unsafe-type-assertion
const HIJACKED = undefined as never;
