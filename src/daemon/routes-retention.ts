/** Which images stay: rules of a guest, and images that nothing removes. */
import Type from 'typebox';
import { RetentionChange, type RetentionPlan } from '../api/schedules.ts';
import { Ref } from '../api/schemas.ts';
import { getGuest, type GuestRecord } from '../catalog/guests.ts';
import { listImages } from '../catalog/images.ts';
import { protectProcedure } from '../images/protect.ts';
import { outlook, pruneProcedure } from '../policy/prune.ts';
import { retentionProcedure } from '../policy/schedule-changes.ts';
import { subjectOf, submit } from './respond.ts';
import { Accepted, Failure, GuestParams, type Routes } from './routes-guests.ts';
import { ImageParams } from './routes-images.ts';
import { imageViews, type ViewContext } from './views.ts';

const PlanRef = Ref<RetentionPlan>('RetentionPlan');

export function retentionRoutes(routes: Routes, context: ViewContext): void {
  const { host } = context;

  routes.get(
    '/v1/retention',
    {
      schema: {
        summary: "What every guest's rules would do with its images now",
        response: { 200: Type.Array(PlanRef), default: Failure },
      },
    },
    async (request) => {
      const sight = await context.gate.sightOf(request.raw);
      const guests = await sight.guests();
      return Promise.all(guests.map((guest) => retentionPlan(context, guest)));
    },
  );

  routes.get(
    '/v1/guests/:guest/retention',
    {
      schema: {
        summary: "What a guest's rules would do with its images now",
        params: GuestParams,
        response: { 200: PlanRef, default: Failure },
      },
    },
    async (request) => retentionPlan(context, await getGuest(host.catalog, request.params.guest)),
  );

  routes.put(
    '/v1/guests/:guest/retention',
    {
      schema: {
        summary: "Change what is given of a guest's rules; nothing is removed by that",
        params: GuestParams,
        body: RetentionChange,
        response: Accepted,
      },
    },
    async (request, reply) =>
      submit(context, reply, {
        kind: 'retention',
        procedure: retentionProcedure(host),
        subject: await subjectOf(context, request.params.guest),
        args: request.body,
      }),
  );

  routes.post(
    '/v1/guests/:guest/prune',
    {
      schema: { summary: 'Remove what the rules do not keep', params: GuestParams, response: Accepted },
    },
    async (request, reply) =>
      submit(context, reply, {
        kind: 'prune',
        procedure: pruneProcedure(host),
        subject: await subjectOf(context, request.params.guest),
        args: {},
      }),
  );

  for (const kind of ['protect', 'unprotect'] as const) {
    const summary = kind === 'protect' ? 'Let nothing remove an image' : 'Let it be removed again';
    routes.post(
      `/v1/guests/:guest/images/:image/${kind}`,
      { schema: { summary, params: ImageParams, response: Accepted } },
      async (request, reply) => {
        const { guest, image } = request.params;
        return submit(context, reply, {
          kind,
          procedure: protectProcedure(host),
          subject: await subjectOf(context, guest, image),
          args: { name: image, protect: kind === 'protect' },
        });
      },
    );
  }
}

async function retentionPlan(context: ViewContext, guest: GuestRecord): Promise<RetentionPlan> {
  const { host } = context;
  const { rules, usedBytes, judgement, warning } = await outlook(host, guest.uuid);
  const views = await imageViews(host, [guest], await listImages(host.catalog, guest.uuid));
  const byName = new Map(views.map((view) => [view.name, view]));
  const images = judgement.verdicts.map(({ image, keep, reasons }) => {
    const { storedBytes = 0, freesBytes = 0, freesAtMostBytes = 0 } = byName.get(image.name) ?? {};
    const { name, createdAt, schedule } = image;
    return {
      ...{ name, createdAt, schedule, keep, reasons: [...reasons] },
      ...{ storedBytes, freesBytes, freesAtMostBytes },
    };
  });
  const gone = images.filter(({ keep }) => !keep);
  return {
    guest: guest.name,
    rules,
    usedBytes,
    images,
    freesBytes: gone.reduce((sum, image) => sum + image.freesBytes, 0),
    freesAtMostBytes: gone.reduce((sum, image) => sum + image.freesAtMostBytes, 0),
    warning,
  };
}
