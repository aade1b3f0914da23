/** What a page or a person looks at first, whole, so that it costs one request. */
import { includesRole } from '../access/principal.ts';
import type { Principal } from '../api/remote.ts';
import type { EventsOverview, GuestOverview, HostOverview, Operation, Overview } from '../api/schemas.ts';
import { Ref } from '../api/schemas.ts';
import type { FastifyRequest } from 'fastify';
import Type from 'typebox';
import { lastAudit } from '../catalog/audit.ts';
import { lastEventId, lastEvents } from '../catalog/events.ts';
import { getGuest, guestNotFound } from '../catalog/guests.ts';
import { listOperations } from '../catalog/operations.ts';
import { ruleOf } from './access.ts';
import { examine } from './doctor/doctor.ts';
import { auditView } from './routes-audit.ts';
import { hostStatus } from './routes-host.ts';
import { imageTexts, listText } from './image-texts.ts';
import { sendText } from './json-text.ts';
import { Failure, GuestParams, type Routes } from './routes-guests.ts';
import { seen } from './sight.ts';
import { guestViews, imagesOf, operationSummary, type DaemonContext, type ViewContext } from './views.ts';

const LISTED_OPERATIONS = 50;
const LISTED_EVENTS = 200;
const LISTED_AUDIT = 50;

const OverviewQuery = Type.Object(
  { images: Type.Optional(Type.String({ enum: ['true', 'false'], description: 'all images too' })) },
  { additionalProperties: false },
);

export function overviewRoutes(routes: Routes, context: DaemonContext): void {
  const { host, engine, gate } = context;
  const { catalog } = host;

  /** First of all: what changes while the rest is read is told by the events after it. */
  const forPage = async (request: FastifyRequest) => ({
    lastEvent: await lastEventId(catalog),
    principal: await gate.principalOf(request.raw),
  });

  routes.get(
    '/v1/overview',
    {
      schema: {
        summary: 'All guests, and the operations under way',
        querystring: OverviewQuery,
        response: { 200: Ref<Overview>('Overview'), default: Failure },
      },
    },
    async (request): Promise<Overview> => {
      const page = await forPage(request);
      const sight = await gate.sightOf(request.raw);
      const guests = await sight.guests();
      const running = await seen(engine.running(), ({ record }) => sight.ofOperation(record));
      return {
        ...page,
        guests: await guestViews(context, guests),
        ...(request.query.images === 'true' ? { images: await imagesOf(context, guests) } : {}),
        operations: running.map((live) => operationSummary(live.record, live)),
      };
    },
  );

  routes.get(
    '/v1/guests/:guest/overview',
    {
      schema: {
        summary: 'A guest, its images, its latest operations',
        params: GuestParams,
        response: { 200: Ref<GuestOverview>('GuestOverview'), default: Failure },
      },
    },
    async (request, reply) => {
      const page = await forPage(request);
      const record = await getGuest(catalog, request.params.guest);
      const [guest] = await guestViews(context, [record]);
      if (guest === undefined) throw guestNotFound(record.name); // it went just now
      const images = listText(await imageTexts(host, record.uuid));
      const rest: Omit<GuestOverview, 'images'> = {
        ...page,
        guest,
        operations: await latestOperations(context, record.uuid),
      };
      return sendText(reply, `{"images":${images},${JSON.stringify(rest).slice(1)}`);
    },
  );

  routes.get(
    '/v1/host/overview',
    {
      schema: {
        summary: 'The host, and what it can do',
        response: { 200: Ref<HostOverview>('HostOverview'), default: Failure },
      },
    },
    async (request): Promise<HostOverview> => ({
      ...(await forPage(request)),
      status: await hostStatus(context),
      doctor: { checks: await examine(context) },
    }),
  );

  routes.get(
    '/v1/events/overview',
    {
      schema: {
        summary: 'The newest events, and who did what, for those who may know',
        response: { 200: Ref<EventsOverview>('EventsOverview'), default: Failure },
      },
    },
    async (request): Promise<EventsOverview> => {
      const page = await forPage(request);
      const sight = await gate.sightOf(request.raw);
      const events = await lastEvents(catalog, LISTED_EVENTS);
      const entries = mayReadAudit(page.principal) ? await lastAudit(catalog, {}, LISTED_AUDIT) : undefined;
      return {
        ...page,
        events: await seen(events, (event) => sight.ofName(event.guest)),
        audit: entries?.map(auditView) ?? null,
      };
    },
  );
}

async function latestOperations({ host, engine }: ViewContext, guest: string): Promise<Operation[]> {
  const records = await listOperations(host.catalog, LISTED_OPERATIONS, guest);
  return records
    .map((record) => operationSummary(record, engine.live(record.id)))
    .toSorted((a, b) => Number(b.state === 'running') - Number(a.state === 'running'));
}

function mayReadAudit({ role, labels }: Principal): boolean {
  return labels === null && includesRole(role, ruleOf('GET', '/v1/audit').role);
}
