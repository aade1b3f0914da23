/**
 * What a kind of storage must know to hold a guest's disks: the contract of a *driver*. One file each beside this one;
 * `drivers.ts` has them all. Which driver a disk has is decided when its guest is defined and pinned there; a guest may
 * have disks of several.
 *
 * A driver makes, copies and removes *layers*, and nothing else: what a layer is for, who holds it and when it goes,
 * decide the model (layers.ts) and the catalog. There are two families:
 *
 *  - `switch` (overlay): a live capture puts a new, empty head over the old one, which thereby stands still and is what
 *    the image pins. Layers stand on each other and are merged when one goes.
 *  - `copy` (reflink, lvm …): a live capture makes, while the guest stands still, a copy of the head that shares its
 *    blocks. The image pins the copy; the guest goes on with the head it had. A copy stands on what its original stands
 *    on: on nothing, when that is the user's own file or itself such a copy.
 *
 * The two mix: an overlay may stand on any layer of any driver, and an overlay that is a head can be copied as a file.
 *
 * The order of things, which makes every step safe to repeat after a crash:
 *  1. `planHead` and `planCopy` name what will be made and touch nothing. The plan is journaled before `make`.
 *  2. `make` is called with what was planned, in a step, or, for a copy, in the pause of a live capture.
 *  3. Only the transaction that commits the operation tells the catalog of the layer. An undo calls `remove` with every
 *     planned layer that the catalog doesn't know, whether or not anything of it was made.
 * A driver keeps no state of its own: what it needs to know later must follow from the layer's record and the world.
 */
import type { DriverName } from '../api/constants.ts';
import type { FileIdentity } from './identity.ts';

/** A disk as the user brought it. */
export interface UserDisk {
  /** a file, or a block device */
  readonly path: string;
  readonly format: 'qcow2' | 'raw';
  /** what the user gives to each copy of it for what its original changes, where storage must set that aside (lvm) */
  readonly reserveBytes?: number | undefined;
}

/** A layer as its driver sees it; a record of the catalog is one. */
export interface LayerFile {
  readonly id: string;
  /** a file, or a block device: no two layers have the same */
  readonly path: string;
  readonly format: 'qcow2' | 'raw';
  /** as the guest sees it */
  readonly sizeBytes: number;
  /** the layer that it reads through to; null when it holds all of its content itself */
  readonly parent: string | null;
  /** the driver that made it, and removes it; of the user's own file: the driver of the disk */
  readonly driver: DriverName;
}

/** A layer that is to be. Stored as JSON in an operation's plan. */
export interface PlannedLayer extends LayerFile {
  readonly disk: string;
  /** the layer that it is made from: the one it will stand on (overlay), or its original (copy) */
  readonly from: string;
  /** see `UserDisk` */
  readonly reserveBytes?: number;
}

/** Where the layers of a disk go. */
export interface Place {
  readonly disk: string;
  /** UUID of the guest that they are made for */
  readonly guest: string;
  /** where its files go, made when needed, mode 0700: in the home of Stasis, or where the driver says (`layerDirectory`) */
  readonly directory: string;
  /** the user's own disk, whatever the guest's head is now; of a clone: that of the guest it is a clone of */
  readonly root: string;
  /** see `UserDisk` */
  readonly reserveBytes?: number | undefined;
}

export interface StorageDriver {
  readonly name: DriverName;
  /** How a live capture gets the disk's state: see above. With `copy` there are `planCopy` and `rehearse`. */
  readonly capture: 'switch' | 'copy';

  /**
   * Why a disk can't have this driver, in words that go on after "because"; undefined when it can. Proven by trying,
   * not by the names of file systems. Leaves nothing behind; nobody uses the disk.
   */
  whyNot(disk: UserDisk): Promise<string | undefined>;

  /** Where files of a disk's layers go, overlays too, when that is not the guest's own directory in the home of Stasis. */
  layerDirectory?(root: string, guest: string): string;

  /**
   * Names a new writable head whose content is that of `from`, a layer which must not change: an overlay over it, or a
   * copy of it. It may be a layer of another driver: one that can't copy `from` plans an overlay (`planOverlay`).
   */
  planHead(from: LayerFile, place: Place): PlannedLayer | Promise<PlannedLayer>;

  /** Names a copy of a head for an image; undefined for a head that it can't copy. Absent when `capture` is `switch`. */
  planCopy?(head: LayerFile, place: Place): PlannedLayer | undefined | Promise<PlannedLayer | undefined>;

  /**
   * Makes a planned layer; what an interrupted attempt left of it is replaced. A copy is made while the guest that
   * writes to `from` stands still and all it wrote is flushed (`from` may be open in QEMU all the time); it is nothing
   * but a sharing of blocks, or fails. Need not be durable yet: see `settle`.
   * @param from the record of `layer.from`
   * @throws StasisError `storage-failed`, `no-space`, `disk-missing`, `cancelled`
   */
  make(layer: PlannedLayer, from: LayerFile, signal?: AbortSignal): Promise<void>;

  /** Makes a made layer, and its name, survive a power cut. After the pause, before the commit. */
  settle(layer: LayerFile): Promise<void>;

  /**
   * How long `make` would now take of a copy of this head, in milliseconds: measured, as near to the truth as it can
   * be without stopping the guest, whose writes may have to wait meanwhile. Leaves nothing behind. Absent when `capture` is `switch`.
   * @param reserveBytes as the planned copy has it
   * @throws StasisError as `make`
   */
  rehearse?(head: LayerFile, signal?: AbortSignal, reserveBytes?: number): Promise<number>;

  /** Removes a layer of this driver that nobody has open, or what was made of a planned one. Nothing there is no error. */
  remove(layer: LayerFile): Promise<void>;

  /**
   * Puts the content of `layer`, which stands on nothing, in the place of the user's own disk and removes `layer`; from
   * then on what it was is `root`. Nobody has either open. A crash at any moment leaves the content whole in one of the
   * two. Repeatable: the second time it ends well also when `layer` is gone already, which is not the same as lost.
   * Called on the driver of the root, which is the user's own disk and never anything else.
   * @param sealed what `identity` said of `layer` when Stasis last let go of it
   * @throws StasisError `disk-missing`, `disk-changed` when `layer` is lost; `storage-failed`
   */
  replaceRoot(layer: LayerFile, root: LayerFile, sealed: FileIdentity): Promise<void>;

  /** The guest is forgotten, its layers are gone: removes what else was made for them. Repeatable. */
  leave?(place: Place): Promise<void>;

  /** Why the root can't be replaced by that layer now, though later it may; never, when absent. */
  whyNotReplace?(layer: LayerFile): Promise<string | undefined>;

  /**
   * Can the content of a child be written down into a layer of this driver that stands on nothing and that nobody
   * holds? If not, such a layer stays until it has no child.
   */
  canTakeIn(layer: LayerFile): boolean;

  /**
   * What shows whether anybody else changed the layer since.
   * @throws StasisError `disk-missing` when it isn't there; `disk-changed` when its content is known to be lost
   */
  identity(layer: Pick<LayerFile, 'path' | 'driver'>): Promise<FileIdentity>;

  /**
   * Removes what was made for a guest, or of its layers, and is none of the layers that the catalog knows: for storage
   * outside of Stasis's own directories, which are looked at anyway. Called while nothing is under way.
   * @returns the paths of what was removed
   */
  removeStrays?(guest: string, known: readonly LayerFile[]): Promise<string[]>;

  /** Paths of what was made of these layers for the guest to write to, for storage outside of Stasis's own directories: see recovery/lost-guest.ts. */
  headsFor?(guest: string, layers: readonly LayerFile[]): Promise<string[]>;

  /** Which of these layers have lost their content without anybody's doing, by their ids. Absent where that can't be. */
  lost?(layers: readonly LayerFile[]): Promise<readonly string[]>;
}
