/** A disk of an image that is being served to this program. */
import type { DiskExport } from '../api/schemas.ts';
import { connectNbd, type NbdConnection } from '../qemu/block/nbd-connection.ts';

/**
 * Holds the export open, for as many clients as like to read it, until it is disposed or this process ends. It goes on
 * without the daemon, which finds it again.
 */
export class HeldExport implements Disposable {
  readonly info: DiskExport;
  readonly #connection: NbdConnection;

  private constructor(info: DiskExport, connection: NbdConnection) {
    this.info = info;
    this.#connection = connection;
  }

  /** @throws StasisError `storage-failed` when it is not there any more, or on another host */
  static async hold(info: DiskExport): Promise<HeldExport> {
    return new HeldExport(info, await connectNbd(info.socket));
  }

  /** Resolves when it has ended, by itself or by being disposed. */
  get closed(): Promise<void> {
    return this.#connection.closed;
  }

  /** Lets go of it: the export ends when nobody else reads it any more. */
  [Symbol.dispose](): void {
    this.#connection[Symbol.dispose]();
  }
}
