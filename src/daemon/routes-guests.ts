/** Guests: list, define, and the buttons of the machine. */
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox';
import type { FastifyInstance, FastifyBaseLogger, RawServerDefault } from 'fastify';
import type { IncomingMessage, ServerResponse } from 'node:http';
import Type, { type Static } from 'typebox';
import { DEFAULT_IMAGE } from '../api/constants.ts';
import type { ErrorReply, Guest, Operation } from '../api/schemas.ts';
import {
  DefineRequest,
  LabelsRequest,
  PolicyRequest,
  QemuRequest,
  Ref,
  ShutdownRequest,
  StartRequest,
} from '../api/schemas.ts';
import { getGuest, guestNotFound } from '../catalog/guests.ts';
import { findImage, type ImageRecord } from '../catalog/images.ts';
import { StasisError } from '../errors.ts';
import { bootProcedure } from '../guests/boot.ts';
import { qemuProcedure } from '../guests/build.ts';
import { defineProcedure, policyProcedure } from '../guests/define.ts';
import {
  pauseProcedure,
  resetProcedure,
  resumeProcedure,
  shutdownProcedure,
  stopProcedure,
} from '../guests/power.ts';
import { labelsProcedure } from '../guests/labels.ts';
import { restoreProcedure } from '../images/restore.ts';
import { undefineProcedure } from '../images/undefine.ts';
import type { Host } from '../guests/host.ts';
import type { Subject } from '../operations/procedure.ts';
import { standingOfImage } from '../policy/start-guest.ts';
import { subjectOf, submit } from './respond.ts';
import { guestViews, type ViewContext } from './views.ts';

export type Routes = FastifyInstance<
  RawServerDefault,
  IncomingMessage,
  ServerResponse,
  FastifyBaseLogger,
  TypeBoxTypeProvider
>;

export const GuestParams = Type.Object({ guest: Type.String() });
const GuestRef = Ref<Guest>('Guest');
export const Failure = Ref<Static<typeof ErrorReply>>('ErrorReply');
export const Accepted = { 202: Ref<Operation>('Operation'), default: Failure };

export function guestRoutes(routes: Routes, context: ViewContext): void {
  const { host } = context;
  const { catalog } = host;

  routes.get(
    '/v1/guests',
    { schema: { summary: 'All guests', response: { 200: Type.Array(GuestRef), default: Failure } } },
    async (request) => {
      const sight = await context.gate.sightOf(request.raw);
      return guestViews(context, await sight.guests());
    },
  );

  routes.get(
    '/v1/guests/:guest',
    { schema: { summary: 'One guest', params: GuestParams, response: { 200: GuestRef, default: Failure } } },
    async (request) => {
      const record = await getGuest(catalog, request.params.guest);
      const [view] = await guestViews(context, [record]);
      if (view === undefined) throw guestNotFound(record.name); // it went just now
      return view;
    },
  );

  routes.post(
    '/v1/guests',
    { schema: { summary: 'Define a guest', body: DefineRequest, response: Accepted } },
    (request, reply) => {
      const { definition, directory = '/' } = request.body;
      const name =
        definition !== null && typeof definition === 'object' && 'name' in definition
          ? String(definition.name)
          : '';
      return submit(context, reply, {
        kind: 'define',
        procedure: defineProcedure(host),
        subject: { guest: null, guestName: name, image: null },
        args: { definition, directory },
      });
    },
  );

  routes.delete(
    '/v1/guests/:guest',
    {
      schema: {
        summary: 'Undefine a guest',
        params: GuestParams,
        querystring: Type.Object({ deleteImages: Type.Optional(Type.String({ enum: ['true', 'false'] })) }),
        response: Accepted,
      },
    },
    async (request, reply) =>
      submit(context, reply, {
        kind: 'undefine',
        procedure: undefineProcedure(host),
        subject: await subjectOf(context, request.params.guest),
        args: { deleteImages: request.query.deleteImages === 'true' },
      }),
  );

  routes.put(
    '/v1/guests/:guest/policy',
    {
      schema: {
        summary: "Change a guest's host policy",
        params: GuestParams,
        body: PolicyRequest,
        response: Accepted,
      },
    },
    async (request, reply) =>
      submit(context, reply, {
        kind: 'policy',
        procedure: policyProcedure(),
        subject: await subjectOf(context, request.params.guest),
        args: request.body,
      }),
  );

  routes.put(
    '/v1/guests/:guest/labels',
    {
      schema: {
        summary: 'Change who may see a guest',
        params: GuestParams,
        body: LabelsRequest,
        response: Accepted,
      },
    },
    async (request, reply) =>
      submit(context, reply, {
        kind: 'labels',
        procedure: labelsProcedure(),
        subject: await subjectOf(context, request.params.guest),
        args: request.body,
      }),
  );

  routes.put(
    '/v1/guests/:guest/qemu',
    {
      schema: {
        summary: 'Have a guest run by another QEMU of the host from its next start or restore on',
        params: GuestParams,
        body: QemuRequest,
        response: Accepted,
      },
    },
    async (request, reply) =>
      submit(context, reply, {
        kind: 'qemu',
        procedure: qemuProcedure(host),
        subject: await subjectOf(context, request.params.guest),
        args: request.body,
      }),
  );

  routes.post(
    '/v1/guests/:guest/start',
    {
      schema: {
        summary: 'Start a guest: from its default image when there is one, and that image is then gone',
        params: GuestParams,
        body: Type.Optional(StartRequest),
        response: Accepted,
      },
    },
    async (request, reply) => {
      const subject = await subjectOf(context, request.params.guest);
      const saved = await findImage(catalog, subject.guest ?? '', DEFAULT_IMAGE);
      // A guest that already runs is told so by the boot, whatever images it has.
      const running = (await getGuest(catalog, request.params.guest)).instance !== null;
      if (saved === undefined || running || request.body?.fresh === true) {
        return submit(context, reply, { kind: 'start', procedure: bootProcedure(host), subject, args: {} });
      }
      await refuseIfLeftBehind(host, subject, saved);
      return submit(context, reply, {
        kind: 'start',
        procedure: restoreProcedure(host),
        subject,
        args: { delete: 'unless-protected' },
      });
    },
  );

  routes.post(
    '/v1/guests/:guest/shutdown',
    {
      schema: {
        summary: 'Press the power button and wait',
        params: GuestParams,
        body: Type.Optional(ShutdownRequest),
        response: Accepted,
      },
    },
    async (request, reply) =>
      submit(context, reply, {
        kind: 'shutdown',
        procedure: shutdownProcedure(host),
        subject: await subjectOf(context, request.params.guest),
        args: request.body ?? {},
      }),
  );

  const buttons = {
    stop: stopProcedure(host),
    pause: pauseProcedure(host),
    resume: resumeProcedure(host),
    reset: resetProcedure(host),
  };
  const summaries = {
    stop: 'Pull the plug',
    pause: 'Let the guest stand still',
    resume: 'Let it go on',
    reset: 'Press the reset button',
  };
  for (const kind of ['stop', 'pause', 'resume', 'reset'] as const) {
    routes.post(
      `/v1/guests/:guest/${kind}`,
      { schema: { summary: summaries[kind], params: GuestParams, response: Accepted } },
      async (request, reply) =>
        submit(context, reply, {
          kind,
          procedure: buttons[kind],
          subject: await subjectOf(context, request.params.guest),
          args: {},
        }),
    );
  }
}

/**
 * A protected default image stays when the guest is started from it. The next start would go back there, and lose what is on
 * the guest's disks since: that is for a person to say.
 * @throws StasisError `image-protected`
 */
async function refuseIfLeftBehind(
  host: Host,
  { guest, guestName }: Subject,
  saved: ImageRecord,
): Promise<void> {
  if (saved.protected === 0 || (await standingOfImage(host.catalog, guest ?? '')) === 'present') return;
  throw new StasisError(
    'image-protected',
    `guest ${guestName} has run since its default image was taken, which is protected and so still there: \`stasis start ${guestName} --fresh\` boots it from its disks, \`stasis restore ${guestName}\` goes back to the image`,
    { guest: guestName, image: saved.name },
  );
}
