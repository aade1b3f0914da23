/** Save images: the seed's five calls. */
import { readFile } from 'node:fs/promises';
import Type from 'typebox';
import { DEFAULT_IMAGE } from '../api/constants.ts';
import type { Image, SavePrediction } from '../api/schemas.ts';
import { PredictionQuery, Ref, RestoreRequest, SaveRequest } from '../api/schemas.ts';
import { getGuest, type GuestRecord } from '../catalog/guests.ts';
import { StasisError } from '../errors.ts';
import type { Host } from '../guests/host.ts';
import { cloneProcedure } from '../images/clone.ts';
import { deleteProcedure } from '../images/delete.ts';
import { imageNotFound, requireImage } from '../images/names.ts';
import { restoreProcedure } from '../images/restore.ts';
import { predictSave } from '../images/choose-capture.ts';
import { saveProcedure } from '../images/save.ts';
import { imageTexts, listText } from './image-texts.ts';
import { sendLongList, sendText } from './json-text.ts';
import { subjectOf, submit } from './respond.ts';
import { Accepted, Failure, GuestParams, type Routes } from './routes-guests.ts';
import { imageViews, type ViewContext } from './views.ts';

export const ImageParams = Type.Object({ guest: Type.String(), image: Type.String() });
const ImageRef = Ref<Image>('Image');

export function imageRoutes(routes: Routes, context: ViewContext): void {
  const { host } = context;
  const { catalog } = host;

  routes.get(
    '/v1/images',
    {
      schema: {
        summary: "All images of all guests, in order of the guests' names, each's oldest first",
        response: { 200: Type.Array(ImageRef), default: Failure },
      },
    },
    async (request, reply) => {
      const sight = await context.gate.sightOf(request.raw);
      return sendLongList(reply, imagesByGuest(host, await sight.guests()));
    },
  );

  routes.get(
    '/v1/guests/:guest/images',
    {
      schema: {
        summary: "A guest's images",
        params: GuestParams,
        response: { 200: Type.Array(ImageRef), default: Failure },
      },
    },
    async (request, reply) => {
      const { uuid } = await getGuest(catalog, request.params.guest);
      return sendText(reply, listText(await imageTexts(host, uuid)));
    },
  );

  routes.get(
    '/v1/guests/:guest/images/:image',
    { schema: { summary: 'One image', params: ImageParams, response: { 200: ImageRef, default: Failure } } },
    async (request, reply) => {
      const guest = await getGuest(catalog, request.params.guest);
      const image = await requireImage(catalog, guest, request.params.image);
      const text = (await imageTexts(host, guest.uuid)).get(image.id);
      if (text === undefined) throw imageNotFound(guest.name, image.name); // it went just now
      return sendText(reply, text);
    },
  );

  routes.get(
    '/v1/guests/:guest/images/:image/screen',
    {
      schema: {
        summary: 'The picture of the screen that an image has',
        params: ImageParams,
        // For a name that is used again, a client adds what tells the images apart: the picture itself never changes.
        querystring: Type.Object({ at: Type.Optional(Type.String()) }),
        response: { 200: { content: { 'image/png': { schema: Type.Unknown() } } }, default: Failure },
      },
    },
    async (request, reply) => {
      const guest = await getGuest(catalog, request.params.guest);
      const image = await requireImage(catalog, guest, request.params.image);
      const [view] = await imageViews(host, [guest], [image]);
      if (view === undefined || view.screenFile === null) {
        throw new StasisError('not-found', `image ${image.name} has no picture of the screen`, {
          guest: guest.name,
          image: image.name,
        });
      }
      void reply.type('image/png').header('cache-control', 'private, max-age=86400');
      return readFile(view.screenFile);
    },
  );

  routes.post(
    '/v1/guests/:guest/images',
    {
      schema: {
        summary: 'Save a guest',
        params: GuestParams,
        body: Type.Optional(SaveRequest),
        response: Accepted,
      },
    },
    async (request, reply) => {
      const args = request.body ?? {};
      if (args.live !== true && (args.method ?? args.maxPauseMs) !== undefined) {
        throw new StasisError(
          'invalid-request',
          'a method and a longest pause are for live saves: a guest that is to stop stands still until it is saved',
          { guest: request.params.guest },
        );
      }
      const subject = await subjectOf(context, request.params.guest, args.name ?? DEFAULT_IMAGE);
      return submit(context, reply, { kind: 'save', procedure: saveProcedure(host), subject, args });
    },
  );

  routes.get(
    '/v1/guests/:guest/prediction',
    {
      schema: {
        summary: 'What a live save would cost the guest now, by each method',
        params: GuestParams,
        querystring: PredictionQuery,
        response: { 200: Ref<SavePrediction>('SavePrediction'), default: Failure },
      },
    },
    async (request) => {
      const { method, maxPauseMs } = request.query;
      const guest = await getGuest(catalog, request.params.guest);
      return predictSave(host, guest, {
        method,
        maxPauseMs: maxPauseMs === undefined ? undefined : Number(maxPauseMs),
      });
    },
  );

  routes.delete(
    '/v1/guests/:guest/images/:image',
    { schema: { summary: 'Delete an image', params: ImageParams, response: Accepted } },
    async (request, reply) => {
      const { guest, image } = request.params;
      return submit(context, reply, {
        kind: 'delete',
        procedure: deleteProcedure(host),
        subject: await subjectOf(context, guest, image),
        args: { name: image },
      });
    },
  );

  routes.post(
    '/v1/guests/:guest/restore',
    {
      schema: {
        summary: 'Restore an image',
        params: GuestParams,
        body: Type.Optional(RestoreRequest),
        response: Accepted,
      },
    },
    async (request, reply) => {
      const { asNewGuest, saveCurrent, ...args } = request.body ?? {};
      if (asNewGuest !== undefined) {
        if (args.delete === true || (saveCurrent ?? false) !== false)
          throw new StasisError(
            'invalid-request',
            'restoring as a new guest leaves this one and its images alone: delete and save-current do not go with it',
            { guest: request.params.guest },
          );
        const source = await getGuest(catalog, request.params.guest);
        return submit(context, reply, {
          kind: 'clone',
          procedure: cloneProcedure(host),
          subject: { guest: null, guestName: asNewGuest, image: args.name ?? null, source: source.uuid },
          args: { ...args, source: source.uuid },
        });
      }
      const subject = await subjectOf(context, request.params.guest, args.name ?? DEFAULT_IMAGE);
      const save =
        saveCurrent === true
          ? `before-restore-${new Date().toISOString().slice(0, 19).replaceAll(':', '-')}`
          : saveCurrent;
      return submit(context, reply, {
        kind: 'restore',
        procedure: restoreProcedure(host),
        subject,
        args: { ...args, ...(save === undefined || save === false ? {} : { saveCurrent: save }) },
      });
    },
  );
}

/** Guest by guest: none of it waits for all of it. */
async function* imagesByGuest(
  host: Host,
  guests: readonly GuestRecord[],
): AsyncGenerator<string, void, undefined> {
  for (const { uuid } of guests) yield listText(await imageTexts(host, uuid));
}
