/** All drivers, and which of them a disk gets. */
import { DRIVER_NAMES, type DriverName } from '../api/constants.ts';
import { StasisError } from '../errors.ts';
import type { ImageTool } from '../qemu/block/image-tool.ts';
import type { StorageDriver, UserDisk } from './driver.ts';
import { lvm } from './lvm.ts';
import { overlay } from './overlay.ts';
import { rbd } from './rbd.ts';
import { reflink } from './reflink.ts';
import { zfs } from './zfs.ts';

export class Drivers {
  readonly #drivers: ReadonlyMap<DriverName, StorageDriver>;

  constructor(drivers: readonly StorageDriver[]) {
    this.#drivers = new Map(drivers.map((driver) => [driver.name, driver]));
  }

  has(name: DriverName): boolean {
    return this.#drivers.has(name);
  }

  /** @throws StasisError `unsupported` for one that this version doesn't have */
  get(name: DriverName): StorageDriver {
    const driver = this.#drivers.get(name);
    if (driver === undefined)
      throw new StasisError('unsupported', `this version of Stasis has no storage driver "${name}"`);
    return driver;
  }

  /**
   * The driver for a disk: the wanted one, or the first that can serve it.
   * @throws StasisError `unsupported` with the reason when the wanted one can't
   */
  async choose(disk: UserDisk, wanted?: DriverName): Promise<DriverName> {
    if (wanted !== undefined) {
      const reason = await this.get(wanted).whyNot(disk);
      if (reason === undefined) return wanted;
      throw new StasisError(
        'unsupported',
        `${disk.path} can't have the storage driver ${wanted}, because ${reason}`,
        { details: { path: disk.path, driver: wanted, reason } },
      );
    }
    for (const name of BEST_FIRST) {
      const driver = this.#drivers.get(name);
      if (driver !== undefined && (await driver.whyNot(disk)) === undefined) return name;
    }
    return 'overlay';
  }
}

/** What shares blocks by itself before what needs layers over layers. */
const BEST_FIRST = DRIVER_NAMES.filter((name) => name !== 'overlay');

export function allDrivers(tool: ImageTool): Drivers {
  return new Drivers([overlay(tool), reflink(tool), lvm, zfs, rbd]);
}
