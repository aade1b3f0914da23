/** For those who look after the daemon: is it alive, is it ready, and its metrics. Outside /v1, where they are looked for. */
import Type from 'typebox';
import type { Readiness } from '../api/schemas.ts';
import { Ref } from '../api/schemas.ts';
import { Failure, type Routes } from './routes-guests.ts';
import type { DaemonContext } from './views.ts';

export function healthRoutes(routes: Routes, { health, metrics }: DaemonContext): void {
  routes.get(
    '/healthz',
    {
      schema: {
        summary: 'Is the daemon alive: does it answer, does its catalog',
        response: { 200: Type.Object({ alive: Type.Literal(true) }), default: Failure },
      },
    },
    async () => {
      await health.alive();
      return { alive: true } as const;
    },
  );

  routes.get(
    '/readyz',
    {
      schema: {
        summary:
          'Can it do its work: the catalog can be written, space is left. It listens when recovery is over',
        response: { 200: Ref<Readiness>('Readiness'), 503: Ref<Readiness>('Readiness'), default: Failure },
      },
    },
    async (_request, reply) => {
      const readiness = await health.readiness();
      return reply.status(readiness.ready ? 200 : 503).send(readiness);
    },
  );

  routes.get(
    '/metrics',
    {
      schema: {
        summary: "Metrics in Prometheus' text format",
        produces: ['text/plain'],
        response: { 200: Type.String(), default: Failure },
      },
    },
    async (_request, reply) => {
      const text = await metrics.text();
      return reply.type(metrics.contentType).send(text);
    },
  );
}
