/** Backups of the catalog. Making it again is done without a daemon: recovery/rebuild.ts. */
import { createReadStream } from 'node:fs';
import Type from 'typebox';
import { Ref, type CatalogBackup } from '../api/schemas.ts';
import { Failure, type Routes } from './routes-guests.ts';
import type { DaemonContext } from './views.ts';

export function catalogRoutes(routes: Routes, { backups }: DaemonContext): void {
  routes.post(
    '/v1/catalog/backups',
    {
      schema: {
        summary: 'Back up the catalog; the newest few backups are kept',
        response: { 200: Ref<CatalogBackup>('CatalogBackup'), default: Failure },
      },
    },
    () => backups.take(),
  );

  routes.get(
    '/v1/catalog/backups/:name',
    {
      schema: {
        summary: 'A backup itself: an SQLite database',
        params: Type.Object({ name: Type.String() }),
        response: {
          200: { content: { 'application/vnd.sqlite3': { schema: Type.Unknown() } } },
          default: Failure,
        },
      },
    },
    async (request, reply) => {
      const path = await backups.find(request.params.name);
      return reply.type('application/vnd.sqlite3').send(createReadStream(path));
    },
  );
}
