/** Which routes take an idempotency key, and what they answer when they know it. */
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import Type from 'typebox';
import type { OperationRecord } from '../catalog/operations.ts';
import { recordCall } from './audit-calls.ts';
import { KEY_HEADER } from './repeats.ts';
import { answerWith } from './respond.ts';
import { Accepted } from './routes-guests.ts';
import type { ViewContext } from './views.ts';

const Headers = Type.Object({
  [KEY_HEADER]: Type.Optional(
    Type.String({
      minLength: 1,
      maxLength: 128,
      pattern: '^[ -~]*$',
      description:
        'Chosen by the caller: the same request with the same key within 24 hours is answered with the same operation',
    }),
  ),
});

/** All routes that begin an operation, which are those that answer with one, take a key. */
export function answerRepeats(server: FastifyInstance, context: ViewContext): void {
  server.addHook('onRoute', (route) => {
    if (route.schema?.response !== Accepted) return;
    const { handler } = route;
    route.schema = { ...route.schema, headers: Headers };
    route.handler = function (request, reply) {
      return context.repeats.once(
        request,
        async () => handler.call(this, request, reply),
        async (operation) => answerAgain(context, request, reply, operation),
      );
    };
  });
}

async function answerAgain(
  context: ViewContext,
  request: FastifyRequest,
  reply: FastifyReply,
  { id, guestName, image }: OperationRecord,
): Promise<unknown> {
  await recordCall(context, request, { outcome: 'repeated', operation: id, guest: guestName, image });
  return answerWith(context, reply, id);
}
