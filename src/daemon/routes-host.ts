/** The host: what the daemon is and has, what the host can do, and the API's own description. */
import { statfs } from 'node:fs/promises';
import type { Doctor, HostStatus } from '../api/schemas.ts';
import { Ref } from '../api/schemas.ts';
import { listGuests } from '../catalog/guests.ts';
import { listImages } from '../catalog/images.ts';
import { VERSION } from '../version.ts';
import { examine } from './doctor/doctor.ts';
import { Failure, type Routes } from './routes-guests.ts';
import { imageViews, type DaemonContext } from './views.ts';

export function hostRoutes(routes: Routes, context: DaemonContext): void {
  const { host } = context;

  routes.get(
    '/v1/host',
    {
      schema: {
        summary: 'The daemon and what it keeps',
        response: { 200: Ref<HostStatus>('HostStatus'), default: Failure },
      },
    },
    async (): Promise<HostStatus> => {
      const guests = await listGuests(host.catalog);
      const images = await imageViews(context, guests, await listImages(host.catalog));
      const { bavail, bsize } = await statfs(host.paths.data);
      return {
        pid: process.pid,
        version: VERSION,
        startedAt: context.startedAt,
        home: host.paths.data,
        qemu: { binary: host.qemu.path, version: host.qemu.versionText },
        guests: { defined: guests.length, running: host.supervisor.liveGuests().length },
        images: images.length,
        storedBytes: images.reduce((sum, image) => sum + image.storedBytes, 0),
        freeBytes: bavail * bsize,
        residentBytes: process.memoryUsage.rss(),
      };
    },
  );

  routes.get(
    '/v1/doctor',
    {
      schema: {
        summary: "What this host can do, what it can't, and how to enable it",
        response: { 200: Ref<Doctor>('Doctor'), default: Failure },
      },
    },
    async () => ({
      checks: await examine(host),
    }),
  );

  routes.get('/v1/openapi.json', { schema: { hide: true } }, () => routes.swagger());
}
