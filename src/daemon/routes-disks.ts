/** Disks: their layers. */
import Type from 'typebox';
import type { DiskTree } from '../api/schemas.ts';
import { Ref } from '../api/schemas.ts';
import { getGuest } from '../catalog/guests.ts';
import { diskTrees } from './disk-view.ts';
import { Failure, GuestParams, type Routes } from './routes-guests.ts';
import type { ViewContext } from './views.ts';

export function diskRoutes(routes: Routes, { host }: ViewContext): void {
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
}
