import type { MemoryFile } from '../memory/memory-file.ts';
import type { MigrationProgress } from '../migration.ts';
import type { PagerProcess } from '../pager/pager-process.ts';
import type { QemuProcess } from '../process/process.ts';

/**
 * - `mapped`: the file is the guest's memory, copy on write
 * - `lazy`: a pager brings pages as they are touched
 * - `eager`: everything is loaded first
 */
export type RestoreMethodName = 'mapped' | 'lazy' | 'eager';

/** A memory file and what stands in it. */
export interface SavedMemory {
  readonly file: string;
  readonly memory: MemoryFile;
}

export interface LoadRequest extends SavedMemory {
  /** The size of the pages that the guest's memory is made of on the host; 4096 unless it has huge pages. */
  readonly hostPageBytes?: number | undefined;
  /** What `startPager` has started, if it was called. */
  readonly pager?: PagerProcess | undefined;
  readonly onProgress?: ((progress: MigrationProgress) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * One way to fill a new QEMU with a saved guest. The caller launches that QEMU, with the arguments of the saved one
 * and those of `machineArgs`, then calls `load`; the guest stands still afterwards until it gets `cont`.
 */
export interface RestoreMethod {
  readonly name: RestoreMethodName;
  /** Whether `machineArgs` say what the guest's memory is made of, in place of the guest's own arguments. */
  readonly bringsMemory: boolean;
  /** Arguments for QEMU beyond the guest's own. */
  machineArgs(saved: SavedMemory): readonly string[];
  /**
   * Starts the process that serves this load from outside of QEMU, for the methods that have one. Call it before the
   * launch: it takes as long as QEMU to get ready. It is ended with QEMU, by `killQemu`.
   */
  startPager?(runDirectory: string, request: LoadRequest): Promise<PagerProcess>;
  /**
   * @throws StasisError `restore-failed` with QEMU's words, `cancelled`, `guest-crashed`. The QEMU is useless then:
   *   end it.
   */
  load(process: QemuProcess, request: LoadRequest): Promise<{ readonly loadMs: number }>;
}

/** QEMU's name for the guest's memory; the rest (video memory, firmware, …) goes by other names. */
export const MAIN_MEMORY = 'pc.ram';
