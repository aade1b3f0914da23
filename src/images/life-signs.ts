/**
 * Does a guest that was just loaded live? Proven, best first, by what its serial console prints, by its agent, or by signs
 * that anybody can see from outside: its vCPUs execute and aren't stuck in one place, its memory changes, its screen does.
 * What it must not do meanwhile is end, reset, panic, or get an error from a disk.
 */
import { createHash } from 'node:crypto';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { createContext, Script } from 'node:vm';
import { messageOf, StasisError } from '../errors.ts';
import { contactAgent } from '../guests/agent.ts';
import { SERIAL_SOCKET } from '../guests/command-line.ts';
import { measureDirtyRate } from '../qemu/capture/dirty-rate.ts';
import { connectTo } from '../qemu/guest-socket.ts';
import type { QemuProcess } from '../qemu/process/process.ts';
import { placesOfCpus, runtimesOfCpus, type CpuPlace } from '../qemu/vcpus.ts';
import { waitFor } from '../qemu/wait.ts';
import { dumpScreen } from './screen.ts';

/** What is taken for proof. */
export interface Proof {
  readonly timeLimitMs: number;
  /** regular expressions for a line of the serial console: it must print the one, and never the other */
  readonly expect?: string;
  readonly reject?: string;
}

export interface Body {
  readonly agent: boolean;
  readonly serial: boolean;
  readonly screen: boolean;
  readonly cpus: number;
}

/** Without agent and pattern it is watched for so long. */
const WATCH_MS = 10_000;
/** An agent that was there when the guest was saved answers at once. */
const AGENT_MS = 20_000;
/** Nothing is asked of QEMU for so long, since that alone would let a vCPU's thread run. */
const UNDISTURBED_MS = 2_000;
const LOOKS = 10;
const LOOK_EVERY_MS = 200;
/** What systems say on their console when memory and disks are at odds, or they are at their end. */
const COMPLAINTS =
  /Kernel panic - not syncing|EXT4-fs error|XFS .*(corruption|metadata I\/O error)|BTRFS (critical|error)|I\/O error, dev /i;
/** Of one line; any sensible pattern takes microseconds. */
const MATCH_MS = 50;
const MAX_LINE_CHARS = 4096;
const LINES_TOLD = 5;

/**
 * Lets it run, and waits until it has shown that it lives.
 * @returns the evidence, in words
 * @throws StasisError `image-damaged` with what was seen instead, `cancelled`
 */
export async function letLive(
  process: QemuProcess,
  body: Body,
  proof: Proof,
  signal: AbortSignal,
): Promise<string[]> {
  const over = new AbortController();
  const within = AbortSignal.any([signal, over.signal]);
  using serial = body.serial ? await Serial.open(process, proof) : undefined;
  const screenBefore = body.screen ? await screenOf(process) : undefined;
  using events = process.qmp.watch('SHUTDOWN', 'RESET', 'GUEST_PANICKED', 'STOP', 'BLOCK_IO_ERROR');
  const beganMs = performance.now();
  await process.qmp.execute('cont');
  const died = Promise.race([
    events.next(undefined, { signal: within }).then(async (event) => {
      const { status } = await process.qmp.execute('query-status');
      throw notAlive(`QEMU told ${event.event} (${JSON.stringify(event.data)}), and it is ${status}`, serial);
    }),
    ...(serial === undefined ? [] : [serial.complained]),
  ]);
  died.catch(() => undefined);
  try {
    const evidence = await Promise.race([
      prove(process, body, { proof, serial, screenBefore }, within),
      died,
    ]);
    const ranMs = Math.round(performance.now() - beganMs);
    return [
      ...evidence,
      `ran ${(ranMs / 1000).toFixed(1)} s without an end, a reset, a panic or an I/O error`,
    ];
  } catch (error) {
    const failure = StasisError.from(error);
    if (signal.aborted || failure.code !== 'guest-crashed') throw error;
    throw notAlive('QEMU ended', serial, error);
  } finally {
    over.abort();
  }
}

interface Look {
  readonly proof: Proof;
  readonly serial: Serial | undefined;
  readonly screenBefore: string | undefined;
}

async function prove(process: QemuProcess, body: Body, look: Look, signal: AbortSignal): Promise<string[]> {
  const { proof, serial } = look;
  if (proof.expect !== undefined) {
    if (serial === undefined)
      throw new StasisError('unsupported', 'the guest has no serial console to print on');
    return [await expected(serial, proof, signal)];
  }
  const answer = body.agent ? await askAgent(process, proof, signal) : undefined;
  if (answer?.isAnswer === true) return [answer.words];
  const signs = await signsOf(process, body, look, signal);
  return [...signs, ...(answer === undefined ? [] : [answer.words])];
}

async function expected(
  serial: Serial,
  { expect, timeLimitMs }: Proof,
  signal: AbortSignal,
): Promise<string> {
  try {
    const line = await waitFor('the expected line', serial.expected, { signal, timeoutMs: timeLimitMs });
    return `its serial console printed "${line}"`;
  } catch (error) {
    if (!(error instanceof StasisError && error.code === 'timeout')) throw error;
    throw notAlive(
      `in ${timeLimitMs / 1000} s its serial console printed nothing like /${expect}/`,
      serial,
      error,
    );
  }
}

async function askAgent(
  process: QemuProcess,
  { timeLimitMs }: Proof,
  signal: AbortSignal,
): Promise<{ isAnswer: boolean; words: string }> {
  const beganMs = performance.now();
  const limitMs = Math.min(timeLimitMs, AGENT_MS);
  for (;;) {
    signal.throwIfAborted();
    const leftMs = limitMs - (performance.now() - beganMs);
    try {
      await using agent = await contactAgent(process, { budgetMs: Math.max(1, leftMs) });
      await agent.ping();
      const tookMs = Math.round(performance.now() - beganMs);
      return { isAnswer: true, words: `its guest agent answered after ${tookMs} ms` };
    } catch (error) {
      const { code } = StasisError.from(error);
      if (code !== 'timeout' && code !== 'qemu-failed') throw error;
      if (leftMs <= 0)
        return { isAnswer: false, words: `its guest agent did not answer in ${limitMs / 1000} s` };
    }
  }
}

/** What can be seen of any guest. @throws StasisError `image-damaged` when there is nothing */
async function signsOf(
  process: QemuProcess,
  { cpus }: Body,
  { proof, serial, screenBefore }: Look,
  signal: AbortSignal,
): Promise<string[]> {
  const untilMs = performance.now() + Math.min(WATCH_MS, proof.timeLimitMs);
  const before = await runtimesOfCpus(process);
  await delay(UNDISTURBED_MS, undefined, { signal });
  const after = await runtimesOfCpus(process, [...before.keys()]);
  const ranMs = [...after].map(([thread, ms]) => ms - (before.get(thread) ?? ms));

  const places: CpuPlace[][] = [];
  for (let look = 0; look < LOOKS; look += 1) {
    places.push(await placesOfCpus(process.qmp));
    await delay(LOOK_EVERY_MS, undefined, { signal });
  }
  const stuck = stuckCpus(places, cpus);
  if (stuck.length > 0)
    throw notAlive(
      `vCPU ${stuck.join(', ')} is stuck at one place: ${places[0]?.[stuck[0] ?? 0]?.address}`,
      serial,
    );
  const bytesPerSecond = await measureDirtyRate(process.qmp, signal);
  await delay(Math.max(0, untilMs - performance.now()), undefined, { signal });
  const screenAfter = screenBefore === undefined ? undefined : await screenOf(process);

  const executed = ranMs.filter((ms) => ms > 0).length;
  const at = new Set(places.flat().map(({ address }) => address)).size;
  const totalMs = ranMs.reduce((sum, ms) => sum + ms, 0);
  const signs = [
    executed > 0 &&
      `${executed} of ${ranMs.length} vCPUs executed (${totalMs.toFixed(1)} ms of processor time in ${UNDISTURBED_MS / 1000} s), seen at ${at} ${at === 1 ? 'place' : 'places'}`,
    bytesPerSecond > 0 && `it changed its memory, ${(bytesPerSecond / 1024 ** 2).toFixed(1)} MiB/s`,
    screenAfter !== screenBefore && 'its screen changed',
  ].filter((sign) => sign !== false);
  if (signs.length === 0)
    throw notAlive('no vCPU executed anything, its memory and its screen did not change', serial);
  return signs;
}

/** Those that were at one and the same place at each look, and not because they had nothing to do. */
function stuckCpus(looks: readonly (readonly CpuPlace[])[], cpus: number): number[] {
  return Array.from({ length: cpus }, (_, cpu) => cpu).filter((cpu) => {
    const seen = looks.flatMap((look) => look[cpu] ?? []);
    return (
      seen.length >= LOOKS &&
      seen.every(({ isHalted }) => !isHalted) &&
      new Set(seen.map(({ address }) => address)).size === 1
    );
  });
}

async function screenOf(process: QemuProcess): Promise<string> {
  return createHash('sha256')
    .update(await dumpScreen(process))
    .digest('hex');
}

/**
 * Whether a line matches. Both the pattern and the line are somebody else's, and together they could take for ever: each
 * match has a time limit, after which it is none.
 */
function matcher(pattern: string | undefined): (line: string) => boolean {
  if (pattern === undefined) return () => false;
  const script = new Script('pattern.test(line)');
  const names = createContext({ pattern: new RegExp(pattern), line: '' });
  return (line) => {
    names['line'] = line;
    try {
      return script.runInContext(names, { timeout: MATCH_MS }) === true;
    } catch {
      return false; // its time is over: nothing else can fail here
    }
  };
}

function notAlive(what: string, serial: Serial | undefined, cause?: unknown): StasisError {
  const lines = serial?.lastLines ?? [];
  const said =
    lines.length === 0
      ? ''
      : `; its serial console said last: ${lines.map((line) => JSON.stringify(line)).join(', ')}`;
  return new StasisError('image-damaged', `${what}${said}`, { details: { serial: lines }, cause });
}

/** The serial console of a guest that nobody else looks at. */
class Serial implements Disposable {
  /** resolves with the line that was expected */
  readonly expected: Promise<string>;
  /** rejects with the line that must not be */
  readonly complained: Promise<never>;
  readonly #socket: Socket;
  #lines: string[] = [];
  #rest = '';

  private constructor(socket: Socket, { expect, reject }: Proof) {
    this.#socket = socket;
    const found = Promise.withResolvers<string>();
    const bad = Promise.withResolvers<never>();
    bad.promise.catch(() => undefined);
    this.expected = found.promise;
    this.complained = bad.promise;
    const [isWanted, isUnwanted] = [matcher(expect), matcher(reject)];
    socket.setEncoding('utf8');
    socket.on('error', () => socket.destroy());
    socket.on('data', (text: string) => {
      for (const line of this.#receive(text)) {
        if (isWanted(line)) found.resolve(line);
        if (COMPLAINTS.test(line) || isUnwanted(line))
          bad.reject(notAlive(`its serial console printed "${line}"`, this));
      }
    });
  }

  static async open({ runDirectory }: QemuProcess, proof: Proof): Promise<Serial> {
    try {
      return new Serial(await connectTo(join(runDirectory, SERIAL_SOCKET)), proof);
    } catch (error) {
      throw notAlive(`nobody served its serial console (${messageOf(error)})`, undefined, error);
    }
  }

  get lastLines(): readonly string[] {
    return [...this.#lines, this.#rest].filter((line) => line !== '').slice(-LINES_TOLD);
  }

  /** Whole lines, and one that has grown too long to be one. */
  #receive(text: string): string[] {
    const parts = (this.#rest + text).split(/\r?\n/);
    const last = parts.pop() ?? '';
    if (last.length > MAX_LINE_CHARS) parts.push(last);
    this.#rest = last.length > MAX_LINE_CHARS ? '' : last;
    const lines = parts.map((line) => line.slice(0, MAX_LINE_CHARS));
    this.#lines = [...this.#lines, ...lines].slice(-LINES_TOLD);
    return lines;
  }

  [Symbol.dispose](): void {
    this.#socket.destroy();
  }
}
