/** Before an upgrade: which images and guests another QEMU could carry on with. */
import type { HostCheck } from '../api/schemas.ts';
import { HostCheckRequest, Ref } from '../api/schemas.ts';
import { getGuest, listGuests } from '../catalog/guests.ts';
import { findImage, listImages } from '../catalog/images.ts';
import { StasisError } from '../errors.ts';
import { storedDefinition } from '../guests/definition.ts';
import { checkGuest, checkImage } from '../images/preflight.ts';
import { describeQemu } from '../qemu/build/binary.ts';
import { Failure, type Routes } from './routes-guests.ts';
import type { ViewContext } from './views.ts';

export function checkRoutes(routes: Routes, { host }: ViewContext): void {
  routes.post(
    '/v1/host/check',
    {
      schema: {
        summary:
          'Which images this QEMU, or another, could restore, which guests it could start, and why not',
        body: HostCheckRequest,
        response: { 200: Ref<HostCheck>('HostCheck'), default: Failure },
      },
    },
    async (request): Promise<HostCheck> => {
      const { binary, build, guest, image } = request.body;
      if (binary !== undefined && build !== undefined)
        throw new StasisError('invalid-request', 'either a path of a QEMU or the name of a build, not both');
      const asked =
        binary === undefined
          ? undefined
          : { ...(await describeQemu(binary)), startedBy: host.qemu.startedBy };
      const usual = asked ?? (await host.builds.get(build));
      const results: HostCheck['results'] = [];
      const guests =
        guest === undefined ? await listGuests(host.catalog) : [await getGuest(host.catalog, guest)];
      // One after the other: each starts a QEMU for a moment, and what runs here comes first.
      for (const record of guests) {
        const own = build ?? storedDefinition(record).qemu.build;
        const target = asked ?? (await host.builds.get(own));
        if (image === undefined) results.push(await checkGuest(host, target, record));
        for (const found of await imagesOf(record.uuid, image))
          results.push(await checkImage(host, target, found));
      }
      return { qemu: { binary: usual.path, version: usual.versionText }, results };
    },
  );

  async function imagesOf(guest: string, image: string | undefined) {
    if (image === undefined) return listImages(host.catalog, guest);
    const found = await findImage(host.catalog, guest, image);
    if (found === undefined)
      throw new StasisError('image-not-found', `there is no image "${image}" of that guest`, { image });
    return [found];
  }
}
