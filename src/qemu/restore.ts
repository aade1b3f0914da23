import type { MigrationProgress } from './migration.ts';
import type { QmpClient } from './qmp.ts';

/**
 * - `mapped`: the file is the guest's memory, copy on write
 * - `lazy`: a pager brings pages as they are touched
 * - `eager`: everything is loaded first
 */
export type RestoreMethodName = 'mapped' | 'lazy' | 'eager';

export interface LoadRequest {
  readonly file: string;
  readonly onProgress?: ((progress: MigrationProgress) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * One way to fill a new QEMU with a saved guest. The caller launches that QEMU, with the arguments of the saved one
 * and those of `machineArgs`, then calls `load`; the guest stands still afterwards until it gets `cont`.
 */
export interface RestoreMethod {
  readonly name: RestoreMethodName;
  /** Arguments for QEMU beyond the guest's own. */
  machineArgs(): readonly string[];
  /**
   * @throws StasisError `restore-failed` with QEMU's words, `cancelled`, `guest-crashed`. The QEMU is useless then:
   *   end it.
   */
  load(qmp: QmpClient, request: LoadRequest): Promise<{ readonly loadMs: number }>;
}
