/** A socket that hands all on to a daemon's, and writes down each request that goes through. */
import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';

const REQUEST_LINE = /^(GET|POST|PUT|DELETE) (\S+) HTTP\/1\.1\r$/gm;

export class CountingProxy implements AsyncDisposable {
  /** `METHOD path`, in order */
  readonly requests: string[] = [];
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(target: string) {
    this.#server = createServer((client) => {
      const daemon = connect(target);
      for (const socket of [client, daemon]) {
        this.#sockets.add(socket);
        socket.on('close', () => this.#sockets.delete(socket));
        socket.on('error', () => socket.destroy());
      }
      // Heads are sent in one piece, and no body of these commands looks like one.
      client.on('data', (data) => {
        for (const [, method, path] of String(data).matchAll(REQUEST_LINE))
          this.requests.push(`${method} ${path}`);
      });
      client.pipe(daemon).pipe(client);
      daemon.on('close', () => client.destroy());
      client.on('close', () => daemon.destroy());
    });
  }

  /** @param path where it listens @param target the daemon's socket */
  static async open(path: string, target: string): Promise<CountingProxy> {
    const proxy = new CountingProxy(target);
    proxy.#server.listen(path);
    await once(proxy.#server, 'listening');
    return proxy;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = once(this.#server, 'close');
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }
}
