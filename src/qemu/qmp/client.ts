import { channel } from 'node:diagnostics_channel';
import { once } from 'node:events';
import { createConnection } from 'node:net';
import type { Duplex } from 'node:stream';
import { messageOf, StasisError } from '../../errors.ts';
import { LineSplitter } from './line-splitter.ts';
import type { CommandName, Commands, EventName, QemuVersion, QmpEvent } from './commands.ts';
import { parseQmpMessage, type QmpGreeting, type QmpMessage } from './message.ts';
import { isResultOf } from './results.ts';
import { isNamed, QmpWatch } from './watch.ts';
import { withSocket } from '../../socket-path.ts';
import { throwIfAborted, waitFor, type WaitOptions } from '../wait.ts';

/** The longest reply we know (`query-qmp-schema`) has 0.2 MB. */
const MAX_LINE_BYTES = 16 << 20;
/** QEMU answers from its main loop, which a flush of a slow disk can hold for long. */
const DEFAULT_COMMAND_TIMEOUT_MS = 60_000;
/** A QMP socket serves one client at a time; a second one waits for its greeting. */
const GREETING_TIMEOUT_MS = 10_000;

/** The diagnostics channel on which each command is told that QEMU did not answer in time. */
export const QMP_TIMEOUTS = 'stasis:qmp-timeout';
const timeouts = channel(QMP_TIMEOUTS);

type ArgumentsOf<C extends CommandName> = Commands[C]['arguments'];
type ResultOf<C extends CommandName> = Commands[C]['result'];

interface Pending {
  readonly command: CommandName;
  readonly resolve: (result: unknown) => void;
  readonly reject: (error: StasisError) => void;
}

/**
 * A client of the QEMU Machine Protocol: line-delimited JSON over a stream, replies matched to commands by id,
 * events in between. It owns the stream. When the stream ends, every pending command and watch fails with
 * `guest-crashed`, since a QMP socket lives as long as its QEMU.
 */
export class QmpClient implements AsyncDisposable {
  /** Resolves, never rejects, when the connection has ended: `interrupted` when we closed it, else how it failed. */
  readonly closed: Promise<StasisError>;
  readonly #stream: Duplex;
  readonly #lines = new LineSplitter(MAX_LINE_BYTES);
  readonly #pending = new Map<number, Pending>();
  readonly #listeners = new Set<(event: QmpEvent) => void>();
  readonly #watches = new Set<{ deliver(event: QmpEvent): void; fail(error: StasisError): void }>();
  readonly #greeting = Promise.withResolvers<QmpGreeting>();
  #lastId = 0;
  #end: StasisError | undefined;
  #version: QemuVersion = { major: 0, minor: 0, micro: 0 };
  #versionText = '';

  private constructor(stream: Duplex) {
    this.#stream = stream;
    const { promise, resolve } = Promise.withResolvers<StasisError>();
    this.closed = promise;
    // Whoever waits for the greeting sees its failure; nobody has to wait for it.
    this.#greeting.promise.catch(() => undefined);
    stream.on('data', (chunk: Buffer) => this.#receive(chunk));
    stream.on('error', (error) => this.#fail(`the QMP connection failed: ${error.message}`, error));
    stream.on('end', () => this.#fail('QEMU ended the QMP connection'));
    stream.once('close', () => {
      resolve(this.#fail('QEMU ended the QMP connection'));
    });
  }

  /**
   * Connects to a QMP unix socket and negotiates. A path of any length will do.
   * @throws StasisError `timeout` when the greeting doesn't come (another client holds the socket), `cancelled`,
   *   `guest-crashed`; Node's system error (`ENOENT`, `ECONNREFUSED`) when nobody listens
   */
  static async connect(path: string, options: WaitOptions = {}): Promise<QmpClient> {
    throwIfAborted(options.signal, `connecting to ${path}`);
    const socket = await withSocket(path, async (shortPath) => {
      const connecting = createConnection({ path: shortPath });
      await once(connecting, 'connect'); // a unix socket connects or fails at once: no need for the signal here
      return connecting;
    });
    return await QmpClient.over(socket, options);
  }

  /** Negotiates over an open stream, for instance a child's standard input and output. Owns the stream. */
  static async over(stream: Duplex, options: WaitOptions = {}): Promise<QmpClient> {
    const client = new QmpClient(stream);
    try {
      const { signal, timeoutMs = GREETING_TIMEOUT_MS } = options;
      const greeting = await waitFor("QEMU's QMP greeting", client.#greeting.promise, { signal, timeoutMs });
      client.#version = greeting.version;
      client.#versionText = greeting.versionText;
      const enable = greeting.allowsOutOfBand ? (['oob'] as const) : [];
      await client.execute('qmp_capabilities', { enable }, { signal, timeoutMs });
      return client;
    } catch (error) {
      await client.close();
      throw error;
    }
  }

  /** The version of QEMU at the other end, from its greeting. */
  get version(): QemuVersion {
    return this.#version;
  }

  /** The same as QEMU's own command line tells it, with the build of its distribution. */
  get versionText(): string {
    return this.#versionText;
  }

  get isClosed(): boolean {
    return this.#end !== undefined;
  }

  /**
   * Executes one command. Commands are executed in the order of these calls. A wait given up (signal, time limit)
   * doesn't undo the command; its late reply is dropped.
   *
   * @throws StasisError `qemu-failed` (details: `command`, and as QEMU gave them `class`, `desc`; these not when it
   *   answered what it never does), `guest-crashed`
   *   when the connection ends first, `cancelled`, `timeout`
   */
  async execute<C extends CommandName>(
    command: C,
    ...[args, options = {}]: undefined extends ArgumentsOf<C>
      ? [args?: undefined, options?: WaitOptions]
      : [args: ArgumentsOf<C>, options?: WaitOptions]
  ): Promise<ResultOf<C>> {
    return this.#send('execute', command, args, options);
  }

  /**
   * Executes one of the few commands that QEMU allows to overtake others, also while its main loop is stuck.
   * @throws as `execute`
   */
  async executeOutOfBand(
    command: 'migrate-recover',
    args: ArgumentsOf<'migrate-recover'>,
    options: WaitOptions = {},
  ): Promise<void> {
    await this.#send('exec-oob', command, args, options);
  }

  /** Calls `listener` for each event of that name, until the returned function is called. It must not throw. */
  on<N extends EventName>(name: N, listener: (event: QmpEvent<N>) => void): () => void {
    const names = new Set<EventName>([name]);
    const filtered = (event: QmpEvent): void => {
      if (isNamed<N>(event, names)) listener(event);
    };
    this.#listeners.add(filtered);
    return () => void this.#listeners.delete(filtered);
  }

  /** Starts to queue the events of these names; see `QmpWatch`. */
  watch<N extends EventName>(...names: readonly N[]): QmpWatch<N> {
    const watch = new QmpWatch<N>(names, () => this.#watches.delete(watch));
    if (this.#end !== undefined) watch.fail(this.#end);
    this.#watches.add(watch);
    return watch;
  }

  /** Ends the connection; QEMU runs on and accepts the next client. Pending commands fail with `interrupted`. */
  async close(): Promise<void> {
    this.#endWith(new StasisError('interrupted', 'the QMP connection was closed'));
    await this.closed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #send<C extends CommandName>(
    how: 'execute' | 'exec-oob',
    command: C,
    args: ArgumentsOf<C>,
    options: WaitOptions,
  ): Promise<ResultOf<C>> {
    throwIfAborted(options.signal, `QMP ${command}`);
    if (this.#end !== undefined) throw this.#end;
    this.#lastId += 1;
    const id = this.#lastId;
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    this.#pending.set(id, { command, resolve, reject });
    this.#stream.write(
      `${JSON.stringify({ [how]: command, id, ...(args === undefined ? {} : { arguments: args }) })}\n`,
    );
    try {
      const { signal, timeoutMs = DEFAULT_COMMAND_TIMEOUT_MS } = options;
      const result = await waitFor(`QMP ${command}`, promise, { signal, timeoutMs });
      if (!isResultOf(command, result))
        throw new StasisError('qemu-failed', `QEMU's answer to "${command}" is none that it has`, {
          details: { command },
        });
      return result;
    } catch (error) {
      if (error instanceof StasisError && error.code === 'timeout') timeouts.publish(command);
      throw error;
    } finally {
      this.#pending.delete(id);
    }
  }

  #receive(chunk: Buffer): void {
    if (this.#end !== undefined) return;
    try {
      for (const line of this.#lines.push(chunk)) this.#dispatch(parseQmpMessage(line));
    } catch (error) {
      this.#endWith(
        new StasisError('qemu-failed', `QEMU broke the QMP protocol: ${messageOf(error)}`, { cause: error }),
      );
    }
  }

  #dispatch(message: QmpMessage): void {
    switch (message.kind) {
      case 'greeting':
        return this.#greeting.resolve(message.greeting);
      case 'reply':
        return this.#pending.get(message.id)?.resolve(message.result);
      case 'error':
        return this.#dispatchError(message);
      case 'event':
        for (const watch of this.#watches) watch.deliver(message.event);
        for (const listener of this.#listeners) listener(message.event);
        return undefined;
      default:
        return message satisfies never;
    }
  }

  #dispatchError({ id, class: errorClass, desc }: Extract<QmpMessage, { kind: 'error' }>): void {
    if (id === undefined) throw new SyntaxError(`QEMU did not understand a command: ${desc}`);
    const pending = this.#pending.get(id);
    if (pending === undefined) return;
    const details = { command: pending.command, class: errorClass, desc };
    pending.reject(new StasisError('qemu-failed', `QEMU refused "${pending.command}": ${desc}`, { details }));
  }

  #fail(message: string, cause?: unknown): StasisError {
    return this.#endWith(new StasisError('guest-crashed', message, { cause }));
  }

  /** The first reason for an end is the one that counts; it is returned. */
  #endWith(error: StasisError): StasisError {
    if (this.#end !== undefined) return this.#end;
    this.#end = error;
    this.#stream.destroy();
    this.#greeting.reject(error);
    for (const { reject } of this.#pending.values()) reject(error);
    for (const watch of this.#watches) watch.fail(error);
    return error;
  }
}

/** QEMU's description of the error, when it is one that QEMU gave as the answer to a command. */
export function qmpErrorDescription(error: unknown): string | undefined {
  if (!(error instanceof StasisError) || error.code !== 'qemu-failed') return undefined;
  const desc = error.details?.['desc'];
  return typeof desc === 'string' ? desc : undefined;
}
