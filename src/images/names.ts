/** Names of images: never paths. */
import { DEFAULT_IMAGE, NAME_PATTERN } from '../api/constants.ts';
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
