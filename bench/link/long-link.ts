/** A network namespace that is far away: a pair of devices, and a process that carries packets between them, late. As root. */
import { execFile, fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);
/** For benchmarks alone (RFC 2544). */
const HERE = '198.18.0.1';
const THERE = '198.18.0.2';

export class LongLink implements AsyncDisposable {
  /** this host's address, as it is seen from there */
  readonly address = HERE;
  /** a program there: `ip netns exec NAMESPACE PROGRAM` */
  readonly namespace: string;
  /** TCP connections that were begun until now */
  connections = 0;
  readonly #carrier: ChildProcess;

  private constructor(namespace: string, carrier: ChildProcess) {
    this.namespace = namespace;
    this.#carrier = carrier;
    carrier.on('message', (message) => {
      if (message === 'connection') this.connections += 1;
    });
  }

  /** @param delayMs each way */
  static async open(delayMs: number): Promise<LongLink> {
    const namespace = `far${process.pid}`;
    const [here, there] = [`${namespace}a`, `${namespace}b`];
    await using stack = new AsyncDisposableStack();
    await run('ip', ['netns', 'add', namespace]);
    stack.defer(() => run('ip', ['netns', 'delete', namespace]).then(() => undefined));
    const carrier = fork(join(import.meta.dirname, 'carrier.ts'), [here, there, String(delayMs)]);
    stack.defer(() => ended(carrier));
    await once(carrier, 'message');
    await run('ip', ['link', 'set', there, 'netns', namespace]);
    await run('ip', ['address', 'add', `${HERE}/30`, 'dev', here]);
    await run('ip', ['link', 'set', here, 'up']);
    await run('ip', ['-n', namespace, 'address', 'add', `${THERE}/30`, 'dev', there]);
    await run('ip', ['-n', namespace, 'link', 'set', there, 'up']);
    await run('ip', ['-n', namespace, 'link', 'set', 'lo', 'up']);
    stack.move();
    return new LongLink(namespace, carrier);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await ended(this.#carrier);
    await run('ip', ['netns', 'delete', this.namespace]);
  }
}

/** It reads, and would do so for ever. */
async function ended(carrier: ChildProcess): Promise<void> {
  if (carrier.exitCode !== null || carrier.signalCode !== null) return;
  const exited = once(carrier, 'exit');
  carrier.kill('SIGKILL');
  await exited;
}
