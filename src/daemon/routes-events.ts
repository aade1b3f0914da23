/** What happens on this host, as a list or as a stream that goes on. */
import Type from 'typebox';
import type { Event, Operation } from '../api/schemas.ts';
import { Ref } from '../api/schemas.ts';
import { eventsAfter, lastEvents } from '../catalog/events.ts';
import type { OperationRecord } from '../catalog/operations.ts';
import { EventStream } from './event-stream.ts';
import { Happenings } from './happenings.ts';
import { acceptsStream } from './respond.ts';
import { Failure, type Routes } from './routes-guests.ts';
import { inOrder, seen } from './sight.ts';
import type { ViewContext } from './views.ts';

const Query = Type.Object({
  guest: Type.Optional(Type.String()),
  limit: Type.Optional(Type.String({ pattern: '^[1-9][0-9]{0,3}$' })),
  operations: Type.Optional(
    Type.String({
      enum: ['true', 'false'],
      description: 'in a stream: running operations too, on every change',
    }),
  ),
  since: Type.Optional(Type.String({ pattern: '^[0-9]{1,15}$' })),
});
const PAGE = 1000;
export function eventRoutes(routes: Routes, context: ViewContext): void {
  const { catalog, events } = context.host;
  const happenings = new Happenings(events, context.engine);

  routes.get(
    '/v1/events',
    {
      schema: {
        summary: 'Events; as an event stream: what follows too',
        querystring: Query,
        response: { 200: Type.Array(Ref<Event>('Event')), default: Failure },
      },
    },
    async (request, reply) => {
      const { guest, limit, since, operations } = request.query;
      const sight = await context.gate.sightOf(request.raw);
      if (!acceptsStream(reply)) {
        const listed =
          since === undefined
            ? await lastEvents(catalog, Number(limit ?? 100), guest)
            : await eventsAfter(catalog, Number(since), Number(limit ?? PAGE));
        return seen(listed, (event) => sight.ofName(event.guest));
      }
      using stream = new EventStream(reply);
      const ifSeen = inOrder(sight, (error) => {
        request.log.error({ err: error }, 'a stream of events ended');
        stream[Symbol.dispose]();
      });
      let lastTold = 0;
      const send = (event: Event) => {
        if (event.id <= lastTold) return; // what is replayed may be told to all just then
        lastTold = event.id;
        if (guest !== undefined && event.guest !== guest) return;
        ifSeen(
          () => sight.ofName(event.guest),
          () => stream.send('event', event, event.id),
        );
      };
      const sendOperation = (operation: Operation, record: OperationRecord) => {
        if (operations !== 'true' || (guest !== undefined && operation.guest !== guest)) return;
        ifSeen(
          () => sight.ofOperation(record),
          () => stream.send('operation', operation),
        );
      };
      // Listen first, replay then: what happens meanwhile waits, and nothing is lost or told twice.
      let replayed = Number(request.headers['last-event-id'] ?? since ?? Number.MAX_SAFE_INTEGER);
      const waiting: Event[] = [];
      let live = false;
      const stop = happenings.listen((happening) => {
        if ('operation' in happening) sendOperation(happening.operation, happening.record);
        else if (live) send(happening.event);
        else waiting.push(happening.event);
      });
      try {
        while (!stream.signal.aborted) {
          const page = await eventsAfter(catalog, replayed, PAGE);
          for (const event of page) send(event);
          replayed = page.at(-1)?.id ?? replayed;
          if (page.length < PAGE) break;
          await stream.drained();
        }
        live = true;
        for (const event of waiting) send(event);
        await stream.closed();
      } finally {
        stop();
      }
      return undefined;
    },
  );
}
