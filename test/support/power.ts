/**
 * A disk whose power can be cut. A home stands on ext4 in a file, over a loop device; the file lies on XFS, which shares
 * blocks, so that a copy of it at one instant is one call (FICLONE) and costs nothing. Such a copy is what a power cut at that
 * instant leaves: all that the file system had written to its disk, in the order in which it did, and nothing of what was
 * still in the page cache. (What a disk's own cache loses or reorders between two flushes is not shown.)
 */
import { execFile } from 'node:child_process';
import { constants } from 'node:fs';
import { copyFile, mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { needs } from './grounds.ts';

const run = promisify(execFile);

export const WHY_NO_POWER_CUTS = needs('mkfs.ext4', 'mkfs.xfs');

export class PowerLab implements AsyncDisposable {
  readonly #directory: string;
  readonly #store: string;
  readonly #disk: string;
  #isMounted = false;

  private constructor(directory: string) {
    this.#directory = directory;
    this.#store = join(directory, 'store');
    this.#disk = join(this.#store, 'disk');
  }

  static async create(): Promise<PowerLab> {
    const lab = new PowerLab(await mkdtemp(join(tmpdir(), 'stasis-power-')));
    try {
      await lab.#make();
      return lab;
    } catch (error) {
      await lab[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Where homes go. Every cut is mounted in the same place, since layers know each other by their paths. */
  get mountPoint(): string {
    return join(this.#directory, 'home');
  }

  async #make(): Promise<void> {
    const image = join(this.#directory, 'xfs');
    await run('truncate', ['-s', '8G', image]);
    await run('mkfs.xfs', ['-q', '-m', 'reflink=1', image]);
    await mkdir(this.#store);
    await mkdir(this.mountPoint);
    await run('mount', ['-o', 'loop', image, this.#store]);
    await run('truncate', ['-s', '1G', this.#disk]);
    await run('mkfs.ext4', ['-q', this.#disk]);
    await this.#mount(this.#disk);
  }

  /** What is on the disk now and nowhere else. @returns the cut, for `powerOn` */
  async cut(): Promise<string> {
    const cut = `${this.#disk}-${performance.now().toFixed(3)}`;
    await copyFile(this.#disk, cut, constants.COPYFILE_FICLONE_FORCE);
    return cut;
  }

  /** The host as it is after that cut. A copy of the cut is what is written to. */
  async powerOn(cut: string): Promise<void> {
    await this.powerOff();
    const copy = join(this.#store, 'present');
    await rm(copy, { force: true });
    await copyFile(cut, copy, constants.COPYFILE_FICLONE_FORCE);
    await this.#mount(copy);
  }

  /** Nobody may have anything open. */
  async powerOff(): Promise<void> {
    if (this.#isMounted) await run('umount', [this.mountPoint]);
    this.#isMounted = false;
  }

  /** By the journal every 30 s only: what isn't synced is long in coming. */
  async #mount(file: string): Promise<void> {
    await run('mount', ['-o', 'loop,commit=30', file, this.mountPoint]);
    this.#isMounted = true;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.powerOff();
    await run('umount', [this.#store]).catch(() => undefined); // it wasn't mounted yet
    await rm(this.#directory, { recursive: true, force: true });
  }
}
