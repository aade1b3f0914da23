/** Who did what, as a list or as a stream that goes on, and whether the trail is as it was written. */
import Type from 'typebox';
import type { AuditEntry, AuditVerdict } from '../api/schemas.ts';
import { Ref } from '../api/schemas.ts';
import { auditAfter, lastAudit, verifyAudit, type AuditRecord } from '../catalog/audit.ts';
import { fromStored } from '../stored.ts';
import type { Caller } from './caller.ts';
import { EventStream } from './event-stream.ts';
import { acceptsStream } from './respond.ts';
import { Failure, type Routes } from './routes-guests.ts';
import type { ViewContext } from './views.ts';

const Query = Type.Object(
  {
    guest: Type.Optional(Type.String()),
    after: Type.Optional(Type.String({ pattern: '^[0-9]{1,15}$', description: 'entries with a greater id' })),
    since: Type.Optional(
      Type.String({ pattern: '^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z$', description: 'ISO 8601, UTC' }),
    ),
    limit: Type.Optional(Type.String({ pattern: '^[1-9][0-9]{0,3}$' })),
  },
  { additionalProperties: false },
);
const PAGE = 1000;

export function auditRoutes(routes: Routes, context: ViewContext): void {
  const { audit, host } = context;

  routes.get(
    '/v1/audit',
    {
      schema: {
        summary: 'The audit trail; as an event stream: what follows too',
        querystring: Query,
        response: { 200: Type.Array(Ref<AuditEntry>('AuditEntry')), default: Failure },
      },
    },
    async (request, reply) => {
      const { guest, since, limit = '100' } = request.query;
      const after = request.query.after === undefined ? undefined : Number(request.query.after);
      if (!acceptsStream(reply)) {
        const filter = { guest, since, after };
        const records =
          after === undefined
            ? await lastAudit(host.catalog, filter, Number(limit))
            : await auditAfter(host.catalog, filter, Number(limit));
        return records.map(auditView);
      }
      let last = after ?? (await lastAudit(host.catalog, {}, 1))[0]?.id ?? 0;
      using stream = new EventStream(reply);
      let grown = Promise.withResolvers<void>();
      const stop = audit.onGrown(() => grown.resolve());
      stream.signal.addEventListener('abort', () => grown.resolve());
      try {
        while (!stream.signal.aborted) {
          const page = await auditAfter(host.catalog, { guest, since, after: last }, PAGE);
          for (const record of page) stream.send('audit', auditView(record), record.id);
          last = page.at(-1)?.id ?? last;
          await stream.drained();
          if (page.length === PAGE) continue;
          await grown.promise;
          // From here on: whatever comes while the next page is read is another look's.
          grown = Promise.withResolvers<void>();
        }
      } finally {
        stop();
      }
      return undefined;
    },
  );

  routes.get(
    '/v1/audit/verification',
    {
      schema: {
        summary: 'Whether anything in the audit trail was changed, taken out or put in since it was written',
        querystring: Type.Object(
          {
            expect: Type.Optional(
              Type.String({
                pattern: '^[0-9a-f]{64}$',
                description: 'a hash that was the newest once: it must be in the trail',
              }),
            ),
          },
          { additionalProperties: false },
        ),
        response: { 200: Ref<AuditVerdict>('AuditVerdict'), default: Failure },
      },
    },
    (request) =>
      host.catalog.transaction().execute((transaction) => verifyAudit(transaction, request.query.expect)),
  );
}

export function auditView({ caller, parameters, ...record }: AuditRecord): AuditEntry {
  return {
    ...record,
    caller: caller === null ? null : fromStored<Caller>(caller),
    parameters: parameters === null ? null : fromStored<unknown>(parameters),
  };
}
