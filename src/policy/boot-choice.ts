/** What a guest's policy comes to when the host boots. Pure: start-guest.ts asks the catalog. */
import type { Policy } from '../api/schemas.ts';

export interface Circumstances {
  readonly onBoot: Policy['onBoot'];
  readonly isRunning: boolean;
  /** its default image: what the guest is now, something from before it last ran, or none */
  readonly image: 'present' | 'past' | 'none';
  /** somebody asked for it: those that were left for that are restored too */
  readonly onDemand: boolean;
}

export interface BootChoice {
  readonly action: 'restore' | 'start' | 'nothing';
  readonly why: string;
}

/**
 * An image that the guest has left behind is never restored here: what is on its disks since would be gone. That is how a
 * crash of the host is got over, and a guest whose live saves are default images.
 */
export function chooseForBoot({ onBoot, isRunning, image, onDemand }: Circumstances): BootChoice {
  if (isRunning) return { action: 'nothing', why: 'it runs already' };
  switch (onBoot) {
    case 'none':
      return { action: 'nothing', why: 'its policy' };
    case 'start':
      return { action: 'start', why: 'its policy' };
    case 'skip-if-saved':
      if (!onDemand && image !== 'none')
        return { action: 'nothing', why: 'it has a default image, and is left to `stasis host restore-all`' };
      return restoreOrStart(image);
    case 'restore':
      return restoreOrStart(image);
    default:
      return onBoot satisfies never;
  }
}

function restoreOrStart(image: Circumstances['image']): BootChoice {
  switch (image) {
    case 'present':
      return { action: 'restore', why: 'its policy' };
    case 'past':
      return {
        action: 'start',
        why: 'its default image, which is kept, is from before the guest last ran: to go back to it would lose what is on its disks since',
      };
    case 'none':
      return { action: 'start', why: 'it has no default image' };
    default:
      return image satisfies never;
  }
}
