/**
 * What the catalog says of a guest as clients see it, remembered until something of that changes: a page, a monitor and a
 * thousand clients ask for the same again and again. What only this process knows, and what the time makes of it, `views.ts` adds.
 */
import { guestsByUuid, type GuestRecord } from '../catalog/guests.ts';
import { countImages, namesOf, type ImageCount } from '../catalog/images.ts';
import { headSummaries, type HeadSummary } from '../catalog/layers.ts';
import { listRetention } from '../catalog/retention.ts';
import { untilGuestWritten, type Reading } from '../catalog/until-written.ts';
import { storedDefinition, type Definition } from '../guests/definition.ts';
import type { Host } from '../guests/host.ts';
import { schedulesOf, type ScheduleAndRun } from './schedule-view.ts';

export interface GuestParts {
  readonly record: GuestRecord;
  readonly definition: Definition;
  readonly heads: readonly HeadSummary[];
  /** none: it has no images */
  readonly images: ImageCount | undefined;
  /** name of the image that its present derives from */
  readonly currentImage: string | null;
  readonly schedules: readonly ScheduleAndRun[];
  /** its rules as they are stored */
  readonly retention: string | undefined;
}

/** Of these guests, by UUID, as far as they are there: a few queries, however many aren't known. */
export const guestParts = untilGuestWritten(readParts);

async function readParts(
  { catalog }: Host,
  uuids: readonly string[],
): Promise<Map<string, Reading<GuestParts>>> {
  const records = await guestsByUuid(catalog, uuids);
  const heads = Map.groupBy(await headSummaries(catalog, uuids), ({ guest }) => guest);
  const images = await countImages(catalog, uuids);
  const schedules = await schedulesOf(catalog, uuids);
  const retention = await listRetention(catalog, uuids);
  const names = await namesOf(
    catalog,
    records.flatMap(({ currentImage }) => currentImage ?? []),
  );
  return new Map(
    records.map((record) => {
      const { uuid, currentImage } = record;
      const own = heads.get(uuid) ?? [];
      const value: GuestParts = {
        record,
        definition: storedDefinition(record),
        heads: own,
        images: images.get(uuid),
        currentImage: names.get(currentImage ?? '') ?? null,
        schedules: schedules.get(uuid) ?? [],
        retention: retention.get(uuid),
      };
      // A clone's present derives from another guest's image.
      const also = [...own.map(({ tree }) => tree), ...(currentImage === null ? [] : [currentImage])];
      return [uuid, { value, also, bytes: 3 * record.definition.length }] as const;
    }),
  );
}
