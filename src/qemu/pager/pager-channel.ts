import { once } from 'node:events';
import { createConnection, type Socket } from 'node:net';
import { StasisError } from '../../errors.ts';
import { withSocket } from '../../socket-path.ts';

/** One of the pager's connections to QEMU. Whoever writes waits until the kernel has taken all of it. */
export class PagerChannel implements Disposable {
  readonly #socket: Socket;
  #failure: Error | undefined;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('error', (error) => (this.#failure ??= error));
  }

  /** @throws Node's system error when nobody listens */
  static async connect(path: string): Promise<PagerChannel> {
    const socket = await withSocket(path, async (short) => {
      const connecting = createConnection({ path: short });
      await once(connecting, 'connect');
      return connecting;
    });
    return new PagerChannel(socket);
  }

  get isClosed(): boolean {
    return this.#socket.destroyed;
  }

  /** @throws StasisError `guest-crashed` when QEMU has closed it */
  async write(bytes: Buffer): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      this.#socket.write(bytes, (error) => (error ? reject(this.#closedBy(error)) : resolve()));
    });
  }

  /** What comes from QEMU, to the end of the connection. */
  async *read(): AsyncGenerator<Buffer> {
    try {
      for await (const bytes of this.#socket.iterator({ destroyOnReturn: false })) yield Buffer.from(bytes);
    } catch (error) {
      throw this.#closedBy(error);
    }
  }

  [Symbol.dispose](): void {
    this.#socket.destroy();
  }

  #closedBy(error: unknown): StasisError {
    const cause = this.#failure ?? error;
    return new StasisError('guest-crashed', 'QEMU closed the connection to its pager', { cause });
  }
}
