/** Programs run in a guest through its agent, as an administrator would from outside. */
import { once } from 'node:events';
import { createConnection, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { AgentReplies, parseAgentReply, type AgentReply } from '../../src/qemu/guest-agent.ts';

const SENTINEL = 0xff;
const TIMEOUT_MS = 120_000;
/** Nothing announces the end of a program in the guest. */
const POLL_MS = 100;

interface Ended {
  readonly exited: boolean;
  readonly exitcode?: number;
  readonly 'out-data'?: string;
  readonly 'err-data'?: string;
}

export class AgentShell implements AsyncDisposable {
  readonly #socket: Socket;
  readonly #replies = new AgentReplies();
  #take: (reply: AgentReply) => void = () => {};

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('data', (chunk: Buffer) => {
      for (const line of this.#replies.push(chunk)) this.#take(parseAgentReply(line));
    });
  }

  /** @param pid of the guest's QEMU */
  static async open(pid: number): Promise<AgentShell> {
    const socket = createConnection(`/proc/${pid}/cwd/agent.sock`);
    await once(socket, 'connect');
    const shell = new AgentShell(socket);
    try {
      socket.write(Buffer.from([SENTINEL]));
      await shell.#ask('guest-sync-delimited', { id: pid });
      return shell;
    } catch (error) {
      await shell[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Runs a program to its end. @returns what it printed @throws Error when it fails */
  async run(path: string, ...args: readonly string[]): Promise<string> {
    const started = await this.#start(path, ...args);
    for (;;) {
      const ended = await this.#ask<Ended>('guest-exec-status', { pid: started.pid });
      const text = (encoded = ''): string => Buffer.from(encoded, 'base64').toString('utf8');
      if (ended.exited && ended.exitcode === 0) return text(ended['out-data']);
      if (ended.exited)
        throw new Error(`${path} ${args.join(' ')} failed in the guest: ${text(ended['err-data'])}`);
      await delay(POLL_MS);
    }
  }

  async #start(path: string, ...args: readonly string[]): Promise<{ readonly pid: number }> {
    return this.#ask('guest-exec', { path, arg: args, 'capture-output': true });
  }

  async #ask<T>(execute: string, args: Readonly<Record<string, unknown>>): Promise<T> {
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    this.#take = (reply) => {
      if (reply.kind === 'return') resolve(reply.value);
      else reject(new Error(`the guest agent refused ${execute}: ${reply.desc}`));
    };
    const timer = setTimeout(() => reject(new Error(`no answer to ${execute}`)), TIMEOUT_MS);
    try {
      this.#socket.write(`${JSON.stringify({ execute, arguments: args })}\n`);
      // oxlint-disable-next-line typescript/no-unsafe-type-assertion
      return (await promise) as T; // Debian's own agent
    } finally {
      clearTimeout(timer);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#socket.closed) return;
    const closed = once(this.#socket, 'close');
    this.#socket.destroy();
    await closed;
  }
}
