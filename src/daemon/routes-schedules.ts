/** When guests are saved by themselves. They are listed with their guests. */
import Type from 'typebox';
import { ScheduleChange, ScheduleRequest } from '../api/schedules.ts';
import { scheduleProcedure, type ScheduleWish } from '../policy/schedule-changes.ts';
import { subjectOf, submit } from './respond.ts';
import { Accepted, GuestParams, type Routes } from './routes-guests.ts';
import type { ViewContext } from './views.ts';

const ScheduleParams = Type.Object({ guest: Type.String(), schedule: Type.String() });

export function scheduleRoutes(routes: Routes, context: ViewContext): void {
  const wish = async (guest: string, args: ScheduleWish) => ({
    kind: 'schedule' as const,
    procedure: scheduleProcedure(context.host),
    subject: await subjectOf(context, guest),
    args,
  });

  routes.post(
    '/v1/guests/:guest/schedules',
    {
      schema: {
        summary: 'Have a guest saved by itself',
        params: GuestParams,
        body: ScheduleRequest,
        response: Accepted,
      },
    },
    async (request, reply) =>
      submit(context, reply, await wish(request.params.guest, { what: 'add', schedule: request.body })),
  );

  routes.put(
    '/v1/guests/:guest/schedules/:schedule',
    {
      schema: {
        summary: 'Change what is given of a schedule, also whether it is paused',
        params: ScheduleParams,
        body: ScheduleChange,
        response: Accepted,
      },
    },
    async (request, reply) => {
      const { guest, schedule: name } = request.params;
      return submit(context, reply, await wish(guest, { what: 'change', name, change: request.body }));
    },
  );

  routes.delete(
    '/v1/guests/:guest/schedules/:schedule',
    {
      schema: {
        summary: 'Remove a schedule; the images that it made stay',
        params: ScheduleParams,
        response: Accepted,
      },
    },
    async (request, reply) => {
      const { guest, schedule: name } = request.params;
      return submit(context, reply, await wish(guest, { what: 'remove', name }));
    },
  );
}
