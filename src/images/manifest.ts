/**
 * What an image says of itself. The document stands in the catalog; recovery/record-files.ts has what is written of it beside
 * the memory file, so that an image can be understood from its directory alone.
 */
import type { Definition } from '../guests/definition.ts';
import type { QuiesceReport } from '../guests/quiesce.ts';
import type { FeatureWord } from '../qemu/build/processor.ts';
import type { Pause } from '../qemu/capture/capture.ts';
import type { Medium } from './media.ts';

export interface ManifestDisk {
  readonly name: string;
  readonly sizeBytes: number;
  /** how the layer came to be the image's; absent in images of before there were drivers, all taken by `switch` or `stop` */
  readonly takenBy?: 'copy' | 'switch' | 'stop';
  /** the pinned layer as it was named then; what it stands on says its own header */
  readonly layer: { readonly id: string; readonly path: string; readonly format: string };
}

export interface Manifest {
  readonly version: 1;
  readonly id: string;
  readonly name: string;
  readonly guest: { readonly name: string; readonly uuid: string };
  readonly createdAt: string;
  readonly live: boolean;
  readonly description: string;
  /** name of the schedule that made it; absent when somebody did by hand */
  readonly schedule?: string;
  readonly method: 'precopy' | 'background' | 'stopped';
  /** how long the guest stood still; null when it was to stop anyway */
  readonly pauseMs: number | null;
  /** absent in images of before it was predicted */
  readonly pause?: {
    readonly predictedMs: number | null;
    /** what the user allowed */
    readonly maxMs: number | null;
    readonly parts: Pause | null;
  };
  /** by QEMU to the memory file, rewritten pages each time */
  readonly bytesWritten?: number;
  readonly saveMs: number;
  readonly memoryBytes: number;
  readonly memoryFile: {
    readonly name: string;
    readonly offset: number;
    readonly storedBytes: number;
    /** its zero pages are zeros in the file too: a guest may have it as its memory */
    readonly mappable?: boolean;
  };
  /** absent in images that were taken before there were any */
  readonly screen?: {
    readonly name: string;
    readonly width: number;
    readonly height: number;
    readonly storedBytes: number;
  } | null;
  readonly guestWasPaused: boolean;
  /** whether its file systems were at rest; absent in images of before that could be */
  readonly quiesce?: QuiesceReport;
  readonly qemuVersion: string;
  /** what the guest's processor could do; absent in images of before it was recorded */
  readonly processor?: readonly FeatureWord[];
  /** every device with state in the memory file: a machine with others is not the one that was saved */
  readonly devices: readonly string[];
  readonly definition: Definition;
  readonly disks: readonly ManifestDisk[];
  /** disks of the machine that the image doesn't hold; absent in images of before they were recorded */
  readonly media?: readonly Medium[];
  /**
   * What its files hold (storage/file-sum.ts says how that is computed); made some time after the image, and made anew when layers
   * are merged. Each disk's layers from the pinned one down to the root, as far as they have one.
   */
  readonly checksums?: {
    readonly format: 1;
    readonly memory?: { readonly sha256: string; readonly sizeBytes: number };
    readonly layers: readonly {
      readonly disk: string;
      readonly id: string;
      readonly path: string;
      readonly sizeBytes: number;
      readonly sha256: string;
    }[];
  };
}

export const MEMORY_FILE = 'memory';
