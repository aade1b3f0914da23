/** Before an upgrade: which images and guests another QEMU could carry on with. */
import type { HostCheck } from '../api/schemas.ts';
import { HostCheckRequest, Ref } from '../api/schemas.ts';
import { getGuest, listGuests } from '../catalog/guests.ts';
import { findImage, listImages } from '../catalog/images.ts';
import { StasisError } from '../errors.ts';
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
      const { binary, guest, image } = request.body;
      const target =
        binary === undefined
          ? host.qemu
          : { ...(await describeQemu(binary)), startedBy: host.qemu.startedBy };
      const results: HostCheck['results'] = [];
      const guests =
        guest === undefined ? await listGuests(host.catalog) : [await getGuest(host.catalog, guest)];
      // One after the other: each starts a QEMU for a moment, and what runs here comes first.
      for (const record of guests) {
        if (image === undefined) results.push(await checkGuest(host, target, record));
        for (const found of await imagesOf(record.uuid, image))
          results.push(await checkImage(host, target, found));
      }
      return { qemu: { binary: target.path, version: target.versionText }, results };
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
