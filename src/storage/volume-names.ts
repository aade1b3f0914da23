/** What volumes that Stasis makes are called, in any storage that has volumes: `stasis-ROLE-GUEST-LAYER`. */
import { newId } from '../ids.ts';
import type { DriverName } from '../api/constants.ts';
import type { LayerFile, Place, PlannedLayer } from './driver.ts';

/** What a volume was made as: `head` to be written to, `copy` of a head for an image, `snap` a copy that needs its original. */
export type Role = 'head' | 'copy' | 'snap';

export const PREFIX = 'stasis';

/** Names a volume that is made from a layer and stands on nothing. @param pathOf the device of the volume of that name */
export function planVolume(
  driver: DriverName,
  from: LayerFile,
  place: Place,
  role: Role,
  pathOf: (name: string) => string,
): PlannedLayer {
  const id = newId();
  return {
    id,
    disk: place.disk,
    path: pathOf(`${PREFIX}-${role}-${bare(place.guest)}-${id}`),
    format: from.format,
    sizeBytes: from.sizeBytes,
    parent: null,
    from: from.id,
    driver,
  };
}

/** Undefined for a volume that is not ours. */
export function roleOf(name: string): Role | undefined {
  const [, role] = /^stasis-(head|copy|snap)-/.exec(name) ?? [];
  return role === 'head' || role === 'copy' || role === 'snap' ? role : undefined;
}

export const bare = (uuid: string) => uuid.replaceAll('-', '');

/** What the user's own volume is called while another takes its place. */
export const outgoingName = ({ id }: { readonly id: string }) => `${PREFIX}-old-${id}`;
