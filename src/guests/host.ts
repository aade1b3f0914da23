/** What procedures work with on this host. */
import type { Policy } from '../api/schemas.ts';
import type { CatalogDatabase } from '../catalog/database.ts';
import type { EventLog } from '../operations/event-log.ts';
import type { Log } from '../log.ts';
import type { Paths } from '../paths.ts';
import type { ImageTool } from '../qemu/block/image-tool.ts';
import type { QemuBinary } from '../qemu/build/binary.ts';
import type { DiskReaders } from './disk-readers.ts';
import type { Drivers } from '../storage/drivers.ts';
import type { Ownership } from './ownership.ts';
import type { Supervisor } from './supervisor.ts';

export interface Host {
  readonly catalog: CatalogDatabase;
  readonly paths: Paths;
  readonly qemu: QemuBinary;
  readonly imageTool: ImageTool;
  readonly drivers: Drivers;
  readonly supervisor: Supervisor;
  readonly readers: DiskReaders;
  readonly ownership: Ownership;
  readonly events: EventLog;
  readonly log: Log;
  /** of guests with none of their own, as the host's settings say */
  readonly policy: Partial<Policy>;
}
