/** Operations: what is under way, what was, and how to stop it. */
import Type from 'typebox';
import type { Operation } from '../api/schemas.ts';
import { Ref } from '../api/schemas.ts';
import { listOperations } from '../catalog/operations.ts';
import { acceptsStream, currentView, streamOperation } from './respond.ts';
import { Failure, type Routes } from './routes-guests.ts';
import { seen } from './sight.ts';
import { operationSummary, type ViewContext } from './views.ts';

const OperationRef = Ref<Operation>('Operation');
const Params = Type.Object({ id: Type.String() });
const LISTED = 200;

export function operationRoutes(routes: Routes, context: ViewContext): void {
  const { host, engine } = context;

  routes.get(
    '/v1/operations',
    {
      schema: {
        summary: 'Operations: those under way, then the newest',
        response: { 200: Type.Array(OperationRef), default: Failure },
      },
    },
    async (request) => {
      const sight = await context.gate.sightOf(request.raw);
      const listed = await listOperations(host.catalog, LISTED);
      const records = await seen(listed, (record) => sight.ofOperation(record));
      const running = records.filter(({ state }) => state === 'running');
      const ended = records.filter(({ state }) => state !== 'running');
      return [...running, ...ended].map((record) => operationSummary(record, engine.live(record.id)));
    },
  );

  routes.get(
    '/v1/operations/:id',
    {
      schema: {
        summary: 'One operation; as an event stream: until it ends',
        params: Params,
        response: { 200: OperationRef, default: Failure },
      },
    },
    async (request, reply) => {
      if (acceptsStream(reply)) return streamOperation(context, reply, request.params.id);
      return currentView(context, request.params.id);
    },
  );

  routes.delete(
    '/v1/operations/:id',
    {
      schema: {
        summary: 'Cancel an operation; as an event stream: until it has undone itself',
        params: Params,
        response: { 200: OperationRef, default: Failure },
      },
    },
    async (request, reply) => {
      await engine.cancel(request.params.id);
      if (acceptsStream(reply)) return streamOperation(context, reply, request.params.id);
      return currentView(context, request.params.id);
    },
  );
}
