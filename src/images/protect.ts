/** Protected images: nothing removes them, whoever asks, until somebody says that they may go. */
import { DEFAULT_IMAGE } from '../api/constants.ts';
import { getGuestByUuid } from '../catalog/guests.ts';
import { setProtected, type ImageRecord } from '../catalog/images.ts';
import { StasisError } from '../errors.ts';
import type { Host } from '../guests/host.ts';
import type { Procedure } from '../operations/procedure.ts';
import { requireImage } from './names.ts';

export interface ProtectArgs {
  readonly name?: string;
  readonly protect: boolean;
}

interface ProtectPlan {
  readonly image: string;
  readonly name: string;
  readonly protect: boolean;
}

/** @param done to the image, as a participle. @throws StasisError `image-protected` */
export function refuseProtected(image: ImageRecord, guestName: string, done: string): void {
  if (image.protected === 0) return;
  throw new StasisError(
    'image-protected',
    `image ${image.name} of ${guestName} is protected and can't be ${done}; \`stasis unprotect ${guestName} ${image.name}\` first`,
    { guest: guestName, image: image.name },
  );
}

export function protectProcedure({ catalog }: Host): Procedure<ProtectArgs, ProtectPlan> {
  return {
    name: 'protect',
    cancellable: false,
    async plan({ name = DEFAULT_IMAGE, protect }, subject) {
      const guest = await getGuestByUuid(catalog, subject.guest ?? subject.guestName);
      const image = await requireImage(catalog, guest, name);
      return { image: image.id, name, protect };
    },
    async run({ image, name, protect }, operation) {
      await operation.commit((transaction) => setProtected(transaction, image, protect));
      await operation.publish({
        type: 'image',
        action: protect ? 'protected' : 'unprotected',
        image: name,
        message: `image ${name} of ${operation.guestName} ${protect ? 'is protected' : 'may be removed again'}`,
      });
    },
    undo: () => Promise.resolve(),
    finish: () => Promise.resolve(),
  };
}
