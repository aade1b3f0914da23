import { once } from 'node:events';
import { createConnection } from 'node:net';
import type { Duplex } from 'node:stream';

/** The host's end of the test guest's line protocol. test-guest/witness.c is the other end, and lists the commands. */

export interface DiskMismatch {
  disk: string;
  memory: number;
  onDisk: number;
}

export interface WitnessStatus {
  /** The last value that memory gave out, and what each writable disk holds right now. */
  counter: number;
  disks: Record<string, { counter: number }>;
  counting: boolean;
  intervalMs: number;
  /** How far the disks were apart when the guest started: more than 1 means that they are not of one instant. */
  apartAtStart: number;
  /** How often a disk held something else than memory says: anything above 0 is a broken image. */
  mismatches: number;
  firstMismatch: DiskMismatch | null;
  ioErrors: number;
  firstIoError: string | null;
  /** Wrong pages found by every checksum so far. */
  memoryErrors: number;
  areaMiB: number;
  dirtyMBps: number;
  dirtiedMiB: number;
  uptimeMs: number;
}

export interface GuestStalls {
  looks: number;
  /** All but one in a hundred looks came no later than this, to a tenth of a millisecond. */
  p99Us: number;
  /** The longest ones, longest first. By the guest's clock, which stands still while its machine does. */
  longestUs: number[];
}

export interface TpmContent {
  /** hexadecimal */
  register: string;
  /** -1 when nothing was ever */
  stored: number;
}

export interface MemoryChecksum {
  checksum: string;
  errors: number;
  mib: number;
}

/** The guest answered, but with an error: a command it does not know, a range beyond a disk, no memory left. */
export class WitnessError extends Error {
  override readonly name = 'WitnessError';
}

interface Reply {
  name: string;
  body: unknown;
}

interface ErrorBody {
  command?: string;
  message?: string;
}

/** The guest is built from these very sources: what it replies is taken to have the shape that is promised here. */
// oxlint-disable-next-line typescript/no-unnecessary-type-parameters
function trusted<T>(body: unknown): T {
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion
  return body as T;
}

interface Waiter {
  accept: (reply: Reply) => boolean;
  resolve: (reply: Reply) => void;
  reject: (error: Error) => void;
}

const COMMAND_TIMEOUT_MS = 30_000;
const RESEND_MS = 200;
/** Output of a guest that never ends a line must not grow without end; the guest's own lines are far shorter. */
const MAX_LINE_CHARS = 64 * 1024;

export class Witness implements AsyncDisposable {
  readonly #console: Duplex;
  readonly #waiters = new Set<Waiter>();
  readonly #recentLines: string[] = [];
  #partialLine = '';
  #onBeat: () => void = () => {};
  #ended: Error | undefined;
  /** Numbers each ping, so that a late answer to one is no proof for the next. */
  #pings = 0;
  /** Replies carry no number, so one command at a time: each waits for the one before it. */
  #lastCommand: Promise<unknown> = Promise.resolve();

  constructor(console: Duplex) {
    this.#console = console;
    console.setEncoding('utf8');
    console.on('data', (text: string) => this.#receive(text));
    console.on('error', (error) => this.#end(error));
    console.on('close', () => this.#end(new Error('the console was closed')));
  }

  static async connect(socketPath: string, signal?: AbortSignal): Promise<Witness> {
    const socket = createConnection(socketPath);
    try {
      await once(socket, 'connect', signal ? { signal } : {});
    } catch (error) {
      socket.destroy();
      throw new Error(`no connection to the guest's console ${socketPath}`, { cause: error });
    }
    return new Witness(socket);
  }

  /** Waits until the guest has started; resolves with the names of its disks. */
  async ready(timeoutMs = 60_000): Promise<{ disks: string[] }> {
    return trusted(await this.#insist('ready', 'ready', timeoutMs));
  }

  /** Proves that the guest runs and answers; also right after a restore, or behind another user of the console. */
  async ping(timeoutMs = COMMAND_TIMEOUT_MS): Promise<void> {
    const n = ++this.#pings;
    await this.#insist(`ping ${n}`, 'pong', timeoutMs, (body) => trusted<{ n?: number }>(body).n === n);
  }

  async status(): Promise<WitnessStatus> {
    return trusted(await this.#command('status', 'status'));
  }

  /** A new memory area whose contents follow from the seed. */
  async fill(seed: number, mib: number): Promise<{ seed: number; mib: number; checksum: string }> {
    return trusted(await this.#command(`fill ${seed} ${mib}`, 'filled', 120_000));
  }

  /** Checks every page of the area: `errors` counts those that are not what they must be. */
  async checksum(): Promise<MemoryChecksum> {
    return trusted(await this.#command('checksum', 'checksum', 120_000));
  }

  /** Rewrites that many pages, chosen by the seed, a third of them with zeroes. */
  async touch(pages: number, seed: number): Promise<{ checksum: string; errors: number }> {
    return trusted(await this.#command(`touch ${pages} ${seed}`, 'touched', 120_000));
  }

  /**
   * Goes on rewriting pages at about this rate, in megabytes per second; 0 stops it. By `touch`, one word of each page
   * is changed, and every page once before any is again: the only way to a high rate where instructions are emulated.
   */
  async dirty(mbPerSecond: number, how: 'rewrite' | 'touch' = 'rewrite'): Promise<void> {
    await this.#command(`dirty ${mbPerSecond}${how === 'touch' ? ' touch' : ''}`, 'dirty');
  }

  /** Whether the guest looks for stalls, a thousand times a second. */
  async watchStalls(state: 'on' | 'off'): Promise<void> {
    await this.#command(`watch ${state}`, 'watch');
  }

  /** What was seen since the last time this was asked. */
  async stalls(): Promise<GuestStalls> {
    return trusted(await this.#command('stalls', 'stalls'));
  }

  /**
   * Has the guest send a sign of life each millisecond, until disposed of, and calls back at each.
   *
   * Like `watchStalls`, but held against the host's clock: this sees what the guest's own can't, its machine standing still.
   */
  async beats(onBeat: () => void): Promise<AsyncDisposable> {
    this.#onBeat = onBeat;
    await this.#command('watch beats', 'watch');
    return {
      [Symbol.asyncDispose]: async () => {
        await this.watchStalls('off');
        this.#onBeat = () => {};
      },
    };
  }

  /** The time between two rounds of the counter; 0: as fast as it can. */
  async interval(ms: number): Promise<void> {
    await this.#command(`interval ${ms}`, 'interval');
  }

  /** The counter. Once this has resolved with `off`, it stands still in memory and on every disk. */
  async hammer(state: 'on' | 'off'): Promise<void> {
    await this.#command(`hammer ${state}`, 'hammer');
  }

  /** Writes data that follows from the seed, durably. The second MiB of a disk belongs to the counter. */
  async write(disk: string, offsetMiB: number, mib: number, seed: number): Promise<{ checksum: string }> {
    return trusted(await this.#command(`write ${disk} ${offsetMiB} ${mib} ${seed}`, 'wrote', 120_000));
  }

  /** Reads from the disk itself; bytes that were written have the checksum that `write` gave. */
  async read(disk: string, offsetMiB: number, mib: number): Promise<{ checksum: string }> {
    return trusted(await this.#command(`read ${disk} ${offsetMiB} ${mib}`, 'read', 120_000));
  }

  /** What was written to the mounted disk, and the longest time between two records since the last time this was asked. */
  async files(): Promise<{ records: number; idleMs: number; longestMs: number }> {
    return trusted(await this.#command('files', 'files'));
  }

  /** A variable of UEFI. */
  async setVariable(value: number): Promise<void> {
    await this.#command(`setvar ${value}`, 'setvar');
  }

  async variable(): Promise<number> {
    return trusted<{ value: number }>(await this.#command('getvar', 'getvar')).value;
  }

  /** Changes a register of the TPM, which forgets it at a start, and what it stores, which it doesn't. */
  async changeTpm(value: number): Promise<TpmContent> {
    await this.#command(`extend ${value}`, 'extend');
    await this.#command(`store ${value}`, 'store');
    return this.tpm();
  }

  async tpm(): Promise<TpmContent> {
    return trusted(await this.#command('tpm', 'tpm'));
  }

  async sync(): Promise<void> {
    await this.#command('sync', 'sync');
  }

  /** Resolves when the guest has promised to power itself off; its process ends shortly after. */
  async poweroff(): Promise<void> {
    await this.#command('poweroff', 'poweroff');
  }

  /** Resolves when the guest says that it powers off, whoever asked it to: the power button, for one. */
  async poweringOff(timeoutMs = COMMAND_TIMEOUT_MS): Promise<void> {
    await this.#await(
      'poweroff',
      timeoutMs,
      () => {},
      (reply) => reply.name === 'poweroff',
    );
  }

  async close(): Promise<void> {
    if (!this.#console.closed) {
      const closed = once(this.#console, 'close');
      this.#console.destroy();
      await closed;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #command(line: string, replyName: string, timeoutMs = COMMAND_TIMEOUT_MS): Promise<unknown> {
    const command = line.split(' ', 1)[0];
    return this.#inTurn(async () => {
      const reply = await this.#await(
        line,
        timeoutMs,
        () => this.#console.write(`${line}\n`),
        ({ name, body }) =>
          name === replyName || (name === 'error' && trusted<ErrorBody>(body).command === command),
      );
      if (reply.name !== 'error') return reply.body;
      throw new WitnessError(`${line}: ${trusted<ErrorBody>(reply.body).message ?? 'failed'}`);
    });
  }

  /**
   * Sends a command again and again until it is answered: a guest that still boots loses what it is sent, and
   * one that was captured in the middle of a line takes the first of ours for that line's end.
   */
  #insist(
    command: string,
    replyName: string,
    timeoutMs: number,
    isMine: (body: unknown) => boolean = () => true,
  ): Promise<unknown> {
    return this.#inTurn(async () => {
      const send = (): unknown => this.#console.write(`\n${command}\n`);
      const timer = setInterval(send, RESEND_MS);
      try {
        const accept = ({ name, body }: Reply): boolean => name === replyName && isMine(body);
        return (await this.#await(command, timeoutMs, send, accept)).body;
      } finally {
        clearInterval(timer);
      }
    });
  }

  #inTurn<T>(action: () => Promise<T>): Promise<T> {
    const turn = this.#lastCommand.then(action, action);
    this.#lastCommand = turn.catch(() => {});
    return turn;
  }

  async #await(
    what: string,
    timeoutMs: number,
    start: () => void,
    accept: (reply: Reply) => boolean,
  ): Promise<Reply> {
    if (this.#ended) throw this.#failure(what, this.#ended.message);
    const { promise, resolve, reject } = Promise.withResolvers<Reply>();
    const waiter: Waiter = { accept, resolve, reject: (error) => reject(this.#failure(what, error.message)) };
    const timer = setTimeout(
      () => reject(this.#failure(what, `no answer within ${timeoutMs} ms`)),
      timeoutMs,
    );
    this.#waiters.add(waiter);
    try {
      start();
      return await promise;
    } finally {
      this.#waiters.delete(waiter);
      clearTimeout(timer);
    }
  }

  #failure(what: string, problem: string): Error {
    const said = this.#recentLines.join('\n  ');
    return new Error(`witness, ${what}: ${problem}. The console's last lines:\n  ${said || '(none)'}`);
  }

  #receive(text: string): void {
    const lines = (this.#partialLine + text).split('\n');
    this.#partialLine = (lines.pop() ?? '').slice(-MAX_LINE_CHARS);
    for (const line of lines) this.#receiveLine(line.trimEnd());
  }

  #receiveLine(line: string): void {
    if (line === '~') return this.#onBeat();
    this.#recentLines.push(line);
    if (this.#recentLines.length > 10) this.#recentLines.shift();
    const match = /^@(\w+) (\{.*\})$/.exec(line);
    if (!match) return;
    let body: unknown;
    try {
      body = JSON.parse(match[2] ?? '');
    } catch {
      return; // the end of one line and the start of another: whoever waits will be told that no answer came
    }
    const reply: Reply = { name: match[1] ?? '', body };
    for (const waiter of this.#waiters) if (waiter.accept(reply)) waiter.resolve(reply);
  }

  #end(error: Error): void {
    this.#ended ??= error;
    for (const waiter of this.#waiters) waiter.reject(this.#ended);
  }
}
