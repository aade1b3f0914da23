/**
 * The QEMU guest agent: a program inside the guest that is asked for what only the guest can do. Its protocol looks like
 * QMP, over a channel that is neither reliable nor private to one conversation, to a peer that may be slow, stopped or
 * hostile (https://www.qemu.org/docs/master/interop/qemu-ga-ref.html). Hence one command at a time, a time limit on each,
 * and replies that are checked before they are believed.
 */
import { once } from 'node:events';
import type { Socket } from 'node:net';
import Type, { type Static } from 'typebox';
import Value from 'typebox/value';
import { errnoOf, messageOf, StasisError } from '../errors.ts';
import { connectTo } from './guest-socket.ts';
import { LineSplitter } from './qmp/line-splitter.ts';
import { waitFor } from './wait.ts';

/** `guest-info` of an agent with all commands has 10 KB. */
const MAX_LINE_BYTES = 1 << 20;
/** Not in any UTF-8 text: clears what the other side has half read. */
const SENTINEL = 0xff;
/** An agent that runs answers in milliseconds. */
const SYNC_TIMEOUT_MS = 3_000;
/** `guest-set-time` waits for a second of the hardware clock to begin. */
const COMMAND_TIMEOUT_MS = 5_000;
/** Windows takes up to ten seconds to bring its writers to rest; Linux as long as it has dirty files to write. */
const FREEZE_TIMEOUT_MS = 10_000;
const NS_PER_MS = 1e6;

/** Command → what it replies. Only the members that are read. */
const REPLIES = {
  'guest-ping': Type.Object({}),
  'guest-info': Type.Object({
    version: Type.String({ maxLength: 100 }),
    supported_commands: Type.Array(Type.Object({ name: Type.String(), enabled: Type.Boolean() })),
  }),
  /** nanoseconds since 1970; as a number exact to a microsecond */
  'guest-get-time': Type.Integer({ minimum: 0 }),
  'guest-set-time': Type.Object({}),
  /** how many file systems */
  'guest-fsfreeze-freeze': Type.Integer({ minimum: 0, maximum: 1e6 }),
  'guest-fsfreeze-thaw': Type.Integer({ minimum: 0, maximum: 1e6 }),
} as const;
type AgentCommand = keyof typeof REPLIES;

export type AgentReply =
  | { readonly kind: 'return'; readonly value: unknown }
  | { readonly kind: 'error'; readonly desc: string };

/**
 * One line from an agent.
 * @throws SyntaxError when it is no JSON, or no reply
 */
export function parseAgentReply(line: string): AgentReply {
  const reply: unknown = JSON.parse(line);
  if (typeof reply === 'object' && reply !== null) {
    if ('return' in reply) return { kind: 'return', value: reply.return };
    if ('error' in reply && Value.Check(Type.Object({ desc: Type.String() }), reply.error))
      return { kind: 'error', desc: reply.error.desc };
  }
  throw new SyntaxError('neither a return nor an error');
}

/** Cuts what an agent sends into lines. A sentinel says that nothing before it was meant for us. */
export class AgentReplies {
  #lines = new LineSplitter(MAX_LINE_BYTES);
  #synchronized = false;

  /** @throws RangeError when a line is longer than 1 MiB */
  *push(chunk: Buffer): Generator<string> {
    const start = chunk.lastIndexOf(SENTINEL) + 1;
    if (start > 0) {
      this.#synchronized = true;
      this.#lines = new LineSplitter(MAX_LINE_BYTES);
    }
    if (this.#synchronized) yield* this.#lines.push(chunk.subarray(start));
  }
}

/** A conversation with a guest's agent. Whatever fails in it ends it: who goes on connects anew. */
export class GuestAgent implements AsyncDisposable {
  readonly #socket: Socket;
  readonly #replies = new AgentReplies();
  /** by `performance.now()` */
  readonly #giveUpAt: number;
  /** takes the reply that is waited for */
  #take: ((reply: AgentReply) => void) | undefined;
  readonly #ended = Promise.withResolvers<never>();

  private constructor(socket: Socket, budgetMs: number) {
    this.#socket = socket;
    this.#giveUpAt = performance.now() + budgetMs;
    this.#ended.promise.catch(() => undefined); // seen by whoever waits for a reply
    socket.on('data', (chunk: Buffer) => this.#receive(chunk));
    socket.on('error', (error) => this.#end(`its channel failed: ${error.message}`));
    socket.on('close', () => this.#end('its channel was closed'));
  }

  /**
   * Connects to an agent's socket and finds the beginning of a conversation: after a restore the agent may be in the middle
   * of an old one, whose rest is dropped.
   * @param budgetMs how long all waits for this agent may take together; each has a limit of its own, of some seconds
   * @throws StasisError `timeout` when no agent answers, `qemu-failed` when there is no channel
   */
  static async connect(path: string, { budgetMs }: { readonly budgetMs: number }): Promise<GuestAgent> {
    const agent = new GuestAgent(await channelTo(path), budgetMs);
    try {
      await agent.#synchronize();
      return agent;
    } catch (error) {
      await agent[Symbol.asyncDispose]();
      throw error;
    }
  }

  async ping(): Promise<void> {
    await this.#execute('guest-ping');
  }

  async info(): Promise<{ readonly version: string; readonly commands: readonly string[] }> {
    const { version, supported_commands: commands } = await this.#execute('guest-info');
    return { version, commands: commands.filter(({ enabled }) => enabled).map(({ name }) => name) };
  }

  /** The clock of the guest's system, in milliseconds since 1970. */
  async getTime(): Promise<number> {
    return (await this.#execute('guest-get-time')) / NS_PER_MS;
  }

  /**
   * Sets the clock of the guest's system, and from it the hardware clock.
   * @param nowMs milliseconds since 1970; without it the system's is set from the hardware clock
   * @throws StasisError `qemu-failed` also when only the second part failed: the clock itself may be right then
   */
  async setTime(nowMs?: number): Promise<void> {
    await this.#execute('guest-set-time', nowMs === undefined ? {} : { time: Math.round(nowMs) * NS_PER_MS });
  }

  /**
   * Brings the guest's file systems to rest: what was written is on the disks, and whoever writes more waits for `thaw`.
   * An agent that was asked does it some time, even when nobody waits for its answer any more.
   * @returns how many there are; with 0 nothing is frozen
   * @throws StasisError `timeout` after ten seconds, `qemu-failed`: unless it refused, the guest may be frozen then
   */
  async freeze(): Promise<number> {
    return this.#execute('guest-fsfreeze-freeze', {}, FREEZE_TIMEOUT_MS);
  }

  /** The opposite. Does no harm to a guest that is not frozen. @returns how many there were */
  async thaw(): Promise<number> {
    return this.#execute('guest-fsfreeze-thaw');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#socket.closed) return;
    const closed = once(this.#socket, 'close');
    this.#socket.destroy();
    await closed;
  }

  /** The sentinel to the agent makes it forget half a command; what it then complains of comes before its own sentinel. */
  async #synchronize(): Promise<void> {
    const id = Math.floor(Math.random() * 2 ** 31);
    this.#socket.write(Buffer.from([SENTINEL]));
    const reply = await this.#ask('guest-sync-delimited', { id }, SYNC_TIMEOUT_MS, isReturn(id));
    if (reply.kind === 'error') throw refused('guest-sync-delimited', reply.desc);
  }

  async #execute<C extends AgentCommand>(
    command: C,
    args: Readonly<Record<string, number>> = {},
    timeoutMs: number = COMMAND_TIMEOUT_MS,
  ): Promise<Static<(typeof REPLIES)[C]>> {
    const reply = await this.#ask(command, args, timeoutMs, () => true);
    if (reply.kind === 'error') throw refused(command, reply.desc);
    const schema: (typeof REPLIES)[C] = REPLIES[command];
    if (!Value.Check(schema, reply.value))
      throw refused(command, 'its reply has another shape than it should');
    return reply.value;
  }

  /** Sends a command and waits for the first reply that is accepted. Once a wait was in vain, replies can't be told apart. */
  async #ask(
    command: string,
    args: Readonly<Record<string, number>>,
    timeoutMs: number,
    accept: (reply: AgentReply) => boolean,
  ): Promise<AgentReply> {
    const { promise, resolve } = Promise.withResolvers<AgentReply>();
    this.#take = (reply) => {
      if (accept(reply)) resolve(reply);
    };
    this.#socket.write(`${JSON.stringify({ execute: command, arguments: args })}\n`);
    const limitMs = Math.max(0, Math.min(timeoutMs, Math.round(this.#giveUpAt - performance.now())));
    try {
      const replied = Promise.race([promise, this.#ended.promise]);
      return await waitFor(`the guest agent's answer to ${command}`, replied, { timeoutMs: limitMs });
    } catch (error) {
      this.#end('an earlier command was not answered');
      throw error;
    } finally {
      this.#take = undefined;
    }
  }

  #receive(chunk: Buffer): void {
    try {
      for (const line of this.#replies.push(chunk)) this.#take?.(parseAgentReply(line));
    } catch (error) {
      this.#end(`it broke its protocol: ${messageOf(error)}`);
    }
  }

  /** The first reason is the one that counts. */
  #end(reason: string): void {
    this.#ended.reject(new StasisError('qemu-failed', `no conversation with the guest agent: ${reason}`));
    this.#socket.destroy();
  }
}

async function channelTo(path: string): Promise<Socket> {
  try {
    return await connectTo(path);
  } catch (error) {
    const reason = errnoOf(error) ?? messageOf(error);
    throw new StasisError('qemu-failed', `there is no channel to the guest agent (${reason})`, {
      cause: error,
    });
  }
}

function isReturn(value: number): (reply: AgentReply) => boolean {
  return (reply) => reply.kind === 'return' && reply.value === value;
}

function refused(command: string, desc: string): StasisError {
  return new StasisError('qemu-failed', `the guest agent refused ${command}: ${desc}`, {
    details: { command, desc },
  });
}
