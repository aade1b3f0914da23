/** Names of images, never paths, and the images that have them. */
import { DEFAULT_IMAGE, NAME_PATTERN } from '../api/constants.ts';
import type { Catalog } from '../catalog/database.ts';
import { findImage, type ImageRecord } from '../catalog/images.ts';
import { StasisError } from '../errors.ts';

const PATTERN = new RegExp(NAME_PATTERN);

/** @throws StasisError `invalid-name` */
export function checkImageName(name: string): string {
  if (PATTERN.test(name)) return name;
  throw new StasisError(
    'invalid-name',
    `"${name}" can't be an image's name: letters, digits, ".", "_" and "-", starting with a letter or digit, at most 64; "${DEFAULT_IMAGE}" is the default image`,
  );
}

/** @throws StasisError `image-not-found` */
export async function requireImage(
  catalog: Catalog,
  guest: { uuid: string; name: string },
  name: string,
): Promise<ImageRecord> {
  const image = await findImage(catalog, guest.uuid, name);
  if (image !== undefined) return image;
  throw imageNotFound(guest.name, name);
}

export function imageNotFound(guest: string, name: string): StasisError {
  const what = name === DEFAULT_IMAGE ? 'no default image' : `no image "${name}"`;
  return new StasisError(
    'image-not-found',
    `guest ${guest} has ${what}; \`stasis images ${guest}\` lists its images`,
    { guest, image: name },
  );
}
