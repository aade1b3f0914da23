/** What is known of an image's soundness: kept with it, told in lists, and asked by whoever decides which images stay. */
import type { Catalog } from '../catalog/database.ts';
import { updateImage, type ImageRecord } from '../catalog/images.ts';
import { fromStored } from '../stored.ts';

export interface Verification {
  /** when all of its files were last found to be as they should */
  readonly checksumsAt?: string;
  /** when it last came to life in a trial … */
  readonly bootAt?: string;
  /** … and what showed that it did */
  readonly evidence?: readonly string[];
  /** what was found wrong since, in words */
  readonly damage?: string;
}

export function verificationOf({ verification }: Pick<ImageRecord, 'verification'>): Verification {
  return verification === null ? {} : fromStored<Verification>(verification);
}

/** All was as it should be: part of a commit. What was found wrong before is no more. */
export async function markVerified(
  catalog: Catalog,
  image: ImageRecord,
  found: Omit<Verification, 'damage'>,
  at: string,
): Promise<void> {
  const { damage: _, ...before } = verificationOf(image);
  await updateImage(catalog, image.id, {
    verifiedAt: at,
    verification: JSON.stringify({ ...before, ...found }),
  });
}

/** Something was wrong: it counts as verified no more, whatever was found before. Part of a commit. */
export async function markUnsound(catalog: Catalog, image: ImageRecord, damage: string): Promise<void> {
  await updateImage(catalog, image.id, { verifiedAt: null, verification: JSON.stringify({ damage }) });
}
