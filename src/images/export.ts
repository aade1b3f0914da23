/**
 * Serving a disk of an image, as it was at that instant, to programs outside: read-only, while the guest runs, and
 * without starting anything. The operation only opens it; it stays open as long as somebody has it (guests/disk-readers.ts),
 * and no operation waits for that. An image that is deleted meanwhile is gone, and its layers follow when the last reader has.
 */
import { DEFAULT_IMAGE } from '../api/constants.ts';
import { getGuestByUuid } from '../catalog/guests.ts';
import { chainOf, pinsOf, type DiskLayer } from '../catalog/layers.ts';
import { StasisError } from '../errors.ts';
import { checkSeals } from '../guests/disks.ts';
import type { ReaderRecord } from '../guests/disk-readers.ts';
import type { Host } from '../guests/host.ts';
import type { Procedure } from '../operations/procedure.ts';
import type { DiskFormat } from '../qemu/block/image-tool.ts';
import { requireImage } from './names.ts';

export interface ExportArgs {
  readonly name?: string;
  /** the only one when absent */
  readonly disk?: string;
}

interface ExportPlan extends Omit<ReaderRecord, 'id'> {
  readonly path: string;
  readonly format: DiskFormat;
}

export function exportProcedure(host: Host): Procedure<ExportArgs, ExportPlan> {
  const { catalog, readers } = host;
  return {
    name: 'export',
    cancellable: true,

    async plan(args, subject) {
      const guest = await getGuestByUuid(catalog, subject.guest ?? subject.guestName);
      const image = await requireImage(catalog, guest, args.name ?? DEFAULT_IMAGE);
      const { disk, layer } = chooseDisk(await pinsOf(catalog, image.id), args.disk, image.name);
      await checkSeals(host, [{ disk, layer: layer.id }]);
      const layers = (await chainOf(catalog, layer.id)).map(({ id }) => id);
      const { path, format, sizeBytes } = layer;
      return {
        ...{ guest: guest.uuid, guestName: guest.name, image: image.name },
        ...{ disk, layers, path, format, sizeBytes },
      };
    },

    async run({ path, format, ...record }, operation) {
      await operation.step('serve', async () => {
        await host.ownership.letReadChain(record.layers[0] ?? '');
        await readers.open({ ...record, id: operation.id }, { path, format });
      });
      await operation.commit(() => Promise.resolve());
    },

    undo: (_plan, operation) => readers.discard(operation.id),

    /** Who is told late that it failed, or never, does not come to read. */
    async finish({ guestName, image }, operation) {
      if (!operation.recovering && readers.find(operation.id) !== undefined) return undefined;
      await readers.discard(operation.id);
      const message = `image ${image} of ${guestName} was opened, but nobody could be told in time; ask again`;
      return new StasisError('interrupted', message);
    },
  };
}

/** @throws StasisError `invalid-request` naming the disks that there are */
function chooseDisk(pins: readonly DiskLayer[], wanted: string | undefined, image: string): DiskLayer {
  const [only, ...others] = pins;
  if (wanted === undefined && only !== undefined && others.length === 0) return only;
  const found = pins.find(({ disk }) => disk === wanted);
  if (found !== undefined) return found;
  const known = pins
    .map(({ disk }) => disk)
    .toSorted()
    .join(', ');
  const problem =
    wanted === undefined ? 'holds several disks: say which of' : `holds no disk "${wanted}"; it holds`;
  throw new StasisError('invalid-request', `image ${image} ${problem} ${known || 'none'}`);
}
