/** Disks: their layers, and what images hold of them served to programs outside. */
import Type from 'typebox';
import type { DiskTree } from '../api/schemas.ts';
import { CompactRequest, ExportRequest, Ref } from '../api/schemas.ts';
import { getGuest } from '../catalog/guests.ts';
import { compactProcedure } from '../images/compact.ts';
import { exportProcedure } from '../images/export.ts';
import { diskTrees } from './disk-view.ts';
import { subjectOf, submit } from './respond.ts';
import { Accepted, Failure, GuestParams, type Routes } from './routes-guests.ts';
import { ImageParams } from './routes-images.ts';
import type { ViewContext } from './views.ts';

export function diskRoutes(routes: Routes, context: ViewContext): void {
  const { host } = context;
  routes.get(
    '/v1/guests/:guest/disks',
    {
      schema: {
        summary: "A guest's disks with all their layers, and what holds each",
        params: GuestParams,
        response: { 200: Type.Array(Ref<DiskTree>('DiskTree')), default: Failure },
      },
    },
    async (request) => diskTrees(host, await getGuest(host.catalog, request.params.guest)),
  );

  routes.post(
    '/v1/guests/:guest/images/:image/export',
    {
      schema: {
        summary: 'Serve a disk of an image read-only, as it was at that instant',
        params: ImageParams,
        body: Type.Optional(ExportRequest),
        response: Accepted,
      },
    },
    async (request, reply) => {
      const { guest, image } = request.params;
      return submit(context, reply, {
        kind: 'export',
        procedure: exportProcedure(host),
        subject: await subjectOf(context, guest, image),
        args: { name: image, ...request.body },
      });
    },
  );

  routes.post(
    '/v1/guests/:guest/compact',
    {
      schema: {
        summary: "Shorten the chains of layers that a guest's disks stand on",
        params: GuestParams,
        body: Type.Optional(CompactRequest),
        response: Accepted,
      },
    },
    async (request, reply) =>
      submit(context, reply, {
        kind: 'compact',
        procedure: compactProcedure(host),
        subject: await subjectOf(context, request.params.guest),
        args: request.body ?? {},
      }),
  );

  routes.post(
    '/v1/exports/:export/claim',
    {
      schema: {
        summary:
          'Tell that the first client of an export has connected: from then on it ends with its last one',
        params: Type.Object({ export: Type.String() }),
        response: { 204: Type.Null(), default: Failure },
      },
    },
    async (request, reply) => {
      host.readers.claimed(request.params.export);
      return reply.status(204).send(null);
    },
  );
}
