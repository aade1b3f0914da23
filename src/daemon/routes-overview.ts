/** What a page or a person looks at first, whole, so that it costs one request. */
import type { GuestOverview, Operation, Overview } from '../api/schemas.ts';
import { Ref } from '../api/schemas.ts';
import { lastEventId } from '../catalog/events.ts';
import { getGuest } from '../catalog/guests.ts';
import { listImages } from '../catalog/images.ts';
import { listOperations } from '../catalog/operations.ts';
import { Failure, GuestParams, type Routes } from './routes-guests.ts';
import { seen } from './sight.ts';
import { guestViews, imageViews, operationSummary, type ViewContext } from './views.ts';

const LISTED_OPERATIONS = 50;

export function overviewRoutes(routes: Routes, context: ViewContext): void {
  const { host, engine } = context;
  const { catalog } = host;

  routes.get(
    '/v1/overview',
    {
      schema: {
        summary: 'All guests, and the operations under way',
        response: { 200: Ref<Overview>('Overview'), default: Failure },
      },
    },
    async (request): Promise<Overview> => {
      const sight = await context.gate.sightOf(request.raw);
      // First: what changes while the rest is read is told by the events after it.
      const lastEvent = await lastEventId(catalog);
      const guests = await sight.guests();
      const running = await seen(engine.running(), ({ record }) => sight.ofOperation(record));
      return {
        lastEvent,
        guests: await guestViews(context, guests),
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
    async (request): Promise<GuestOverview> => {
      const lastEvent = await lastEventId(catalog);
      const record = await getGuest(catalog, request.params.guest);
      const [guest] = await guestViews(context, [record]);
      if (guest === undefined) throw new Error('a record has a view');
      return {
        lastEvent,
        guest,
        images: await imageViews(context, [record], await listImages(catalog, record.uuid)),
        operations: await latestOperations(context, record.uuid),
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
