/** What procedures work with on this host. */
import type { Policy } from '../api/schemas.ts';
import type { CatalogDatabase } from '../catalog/database.ts';
import type { EventLog } from '../operations/event-log.ts';
import type { Log } from '../log.ts';
import type { Paths } from '../paths.ts';
import type { ImageTool } from '../qemu/block/image-tool.ts';
import type { QemuBinary } from '../qemu/build/binary.ts';
import type { QemuBuilds } from '../qemu/build/builds.ts';
import type { DiskReaders } from './disk-readers.ts';
import type { Drivers } from '../storage/drivers.ts';
import type { Ownership } from './ownership.ts';
import type { Supervisor } from './supervisor.ts';

/** What is written beside layers and images, for when the catalog is lost: recovery/mirror.ts. */
export interface Records {
  /**
   * Resolves when it says all that is committed, durable: before a file is changed of which it would say something wrong then.
   * @throws StasisError `no-space`, `storage-failed`
   */
  flush(): Promise<void>;
}

export interface Host {
  readonly catalog: CatalogDatabase;
  readonly paths: Paths;
  /** the usual one, as it was when the daemon started; its tools serve all guests */
  readonly qemu: QemuBinary;
  /** all that guests may run by */
  readonly builds: QemuBuilds;
  readonly imageTool: ImageTool;
  readonly drivers: Drivers;
  readonly supervisor: Supervisor;
  readonly readers: DiskReaders;
  readonly ownership: Ownership;
  readonly records: Records;
  readonly events: EventLog;
  readonly log: Log;
  /** of guests with none of their own, as the host's settings say */
  readonly policy: Partial<Policy>;
}
