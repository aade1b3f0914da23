import { statfs } from 'node:fs/promises';
import { dirname } from 'node:path';
import { messageOf, StasisError } from '../../errors.ts';
import { stillness } from '../../stillness.ts';
import { prepareMigration, resetMigration } from '../build/capabilities.ts';
import { cancelMigration, memoryIsArriving, type MigrationProgress } from '../migration.ts';
import type { MigrationCapability, MigrationParameters } from '../qmp/commands.ts';
import type { QmpWatch } from '../qmp/watch.ts';
import type { QmpClient } from '../qmp/client.ts';
import { resumeGuest } from '../process/run-state.ts';

/** QEMU writes in pieces up to this size: when a write failed with less left, it was for want of space. */
const FULL_BELOW_BYTES = 1 << 20;

/**
 * - `precopy`: memory is written while the guest runs, state is that of the end
 * - `background`: memory is write-protected, state is that of the beginning
 * - `stopped`: the guest is stopped first
 */
export type CaptureMethodName = 'precopy' | 'background' | 'stopped';

export interface CaptureRequest {
  readonly qmp: QmpClient;
  /** Absolute path of the memory file. QEMU makes it. It is the caller's: also to remove it when the capture fails. */
  readonly file: string;
  /** For a QEMU that may make no file there: makes an empty one that it may write. Called when a capture is begun once more. */
  readonly makeFile?: (() => Promise<void>) | undefined;
  /** Runs while the guest stands still and its disks are drained: switch the disks. If it fails, so does the capture. */
  readonly onPaused: () => Promise<void>;
  /**
   * For who has to prepare the guest: runs while it still does, as shortly before it is stopped as that can be foreseen,
   * and once more when it was in vain. What it throws abandons the capture.
   */
  readonly onStopping?: (() => Promise<void>) | undefined;
  /** Runs as soon as the guest does again. */
  readonly onResumed?: (() => Promise<void>) | undefined;
  readonly onProgress?: ((progress: MigrationProgress) => void) | undefined;
  /** Abandons the capture; without effect once `onPaused` was called for a running guest. */
  readonly signal?: AbortSignal | undefined;
  /** The most that may be left to write when a running guest is stopped; no limit when absent. See convergence.ts. */
  readonly lastPassMs?: number | undefined;
}

export interface CaptureResult {
  readonly method: CaptureMethodName;
  /** `undefined` when the guest did not run before, or does not run after. */
  readonly pause: Pause | undefined;
  /** What QEMU wrote, rewritten pages each time. The file is smaller, and sparse. */
  readonly bytesWritten: number;
  /** How fast that was: of precopy while it went on at full speed, of the others on the whole. */
  readonly bytesPerSecond: number;
  readonly totalMs: number;
  /** How often QEMU went through memory; 1 when the guest was stopped. */
  readonly passes: number;
}

/**
 * One way to write memory and device state to a mapped-ram file. The contract of each:
 * - on failure and on abort the guest is what it was before, running or paused, and can be captured again; disks that
 *   `onPaused` has switched stay switched, which changes nothing that the guest sees;
 * - migration capabilities and parameters are QEMU's defaults afterwards, always;
 * - the file holds what QEMU wrote, not yet flushed to the disk and not verified (memory-file.ts does that).
 *
 * @throws StasisError `capture-failed`, `no-space`, `cancelled`, `guest-crashed`, or what `onPaused` throws
 */
export interface CaptureMethod {
  readonly name: CaptureMethodName;
  capture(request: CaptureRequest): Promise<CaptureResult>;
}

/** How long a guest stood still, and for what. The parts are all of it. */
export interface Pause {
  /** STOP → RESUME by QEMU's own clock. */
  readonly pauseMs: number;
  /** Until it stood still and we knew. */
  readonly stopMs: number;
  /** `onPaused`: the switch of the disks. */
  readonly disksMs: number;
  /** What had to happen to memory meanwhile: the last of it written, or all of it tracked; and device state. */
  readonly memoryMs: number;
  /** Until it ran again. */
  readonly resumeMs: number;
}

export interface MigrationSetup {
  readonly capabilities: readonly MigrationCapability[];
  readonly parameters: MigrationParameters;
}

/**
 * Runs `transfer` between the setting and the resetting of capabilities. When it fails, first undoes everything:
 * cancels the migration and waits for its end, resets, and lets the guest run if it ran before.
 */
export async function withMigration(
  request: CaptureRequest,
  wasRunning: boolean,
  setup: MigrationSetup,
  transfer: () => Promise<CaptureResult>,
): Promise<CaptureResult> {
  const { qmp, file } = request;
  try {
    await prepareMigration(qmp, setup.capabilities, setup.parameters);
    const result = await transfer();
    await resetMigration(qmp);
    return result;
  } catch (error) {
    const failure = await explain(error, file);
    if (!qmp.isClosed) await undo(qmp, wasRunning, failure);
    throw failure;
  }
}

/**
 * For a daemon that was restarted in the middle of a capture, of whatever method and at whatever moment: cancels the
 * migration, waits for its end, resets capabilities, and lets the guest run if it should. Idempotent. The file is
 * worthless then; whether the disks were switched tells `headNodes`.
 *
 * @throws StasisError `qemu-failed`, `guest-crashed`
 */
export async function recoverCapture(qmp: QmpClient, guest: { readonly wasRunning: boolean }): Promise<void> {
  // A guest whose memory is still arriving can't have been captured, and those capabilities are in use.
  if (!(await memoryIsArriving(qmp))) {
    await cancelMigration(qmp);
    await resetMigration(qmp);
  }
  if (guest.wasRunning) await resumeGuest(qmp);
}

async function undo(qmp: QmpClient, wasRunning: boolean, failure: StasisError): Promise<void> {
  try {
    await recoverCapture(qmp, { wasRunning });
  } catch (error) {
    const message = `${failure.message}; and the guest could not be put back: ${messageOf(error)}`;
    throw new StasisError(failure.code, message, { details: failure.details, cause: [failure, error] });
  }
}

/** QEMU reports a full disk as it comes, often only as "Input/output error". The file system knows better. */
async function explain(thrown: unknown, file: string): Promise<StasisError> {
  const failure = StasisError.from(thrown);
  if (failure.code !== 'capture-failed' && failure.code !== 'qemu-failed') return failure;
  const { bavail, bsize } = await statfs(dirname(file)).catch(() => ({ bavail: Infinity, bsize: 1 }));
  const freeBytes = bavail * bsize;
  if (freeBytes >= FULL_BELOW_BYTES && !/no space left/i.test(failure.message)) return failure;
  return new StasisError('no-space', `no space left for the guest's memory in ${dirname(file)}`, {
    details: { file, freeBytes, desc: failure.message },
    cause: thrown,
  });
}

/** What a capture that writes each page once tells of itself. @param begin of `performance.now()` */
export async function inOnePass(
  qmp: QmpClient,
  begin: number,
): Promise<Pick<CaptureResult, 'bytesWritten' | 'bytesPerSecond' | 'totalMs' | 'passes'>> {
  const { ram } = await qmp.execute('query-migrate');
  const bytesWritten = ram?.transferred ?? 0;
  const totalMs = performance.now() - begin;
  return { bytesWritten, bytesPerSecond: (bytesWritten / totalMs) * 1000, totalMs, passes: 1 };
}

/** Measures one pause, and keeps others quiet in it: opened before the guest stops, marked at the end of each part. */
export class PauseClock implements Disposable {
  readonly #events: QmpWatch<'STOP' | 'RESUME'>;
  readonly #unlisten: (() => void)[];
  #stillness: Disposable | undefined;
  readonly #marks = new Map<'stop' | 'disks' | 'memory' | 'resume', number>();

  constructor(qmp: QmpClient) {
    this.#events = qmp.watch('STOP', 'RESUME');
    // As soon as QEMU says it: whoever waits for the event gets to it only after others.
    this.#unlisten = [
      qmp.on('STOP', () => (this.#stillness ??= stillness.begin())),
      qmp.on('RESUME', () => this.#runs()),
    ];
  }

  mark(part: 'stop' | 'disks' | 'memory' | 'resume'): void {
    this.#marks.set(part, performance.now());
  }

  /** @throws StasisError `timeout` when QEMU never told of the pause */
  async read(): Promise<Pause> {
    const stop = await this.#events.next(({ event }) => event === 'STOP', { timeoutMs: 10_000 });
    const resume = await this.#events.next(({ event }) => event === 'RESUME', { timeoutMs: 10_000 });
    const pauseMs = resume.timestampMs - stop.timestampMs;
    const between = (from: 'stop' | 'disks' | 'memory', to: 'disks' | 'memory' | 'resume') =>
      (this.#marks.get(to) ?? 0) - (this.#marks.get(from) ?? 0);
    const [disksMs, memoryMs] = [between('stop', 'disks'), between('disks', 'memory')];
    const restMs = Math.max(0, pauseMs - disksMs - memoryMs);
    // We may hear of it later than the guest runs.
    const resumeMs = Math.min(restMs, between('memory', 'resume'));
    const stopMs = restMs - resumeMs;
    return { pauseMs, stopMs, disksMs, memoryMs, resumeMs };
  }

  /** Whether the guest was stopped once more since; asked once, at the end. */
  hasStoppedAgain(): boolean {
    return this.#events.drain().some(({ event }) => event === 'STOP');
  }

  [Symbol.dispose](): void {
    this.#runs();
    for (const unlisten of this.#unlisten) unlisten();
    this.#events[Symbol.dispose]();
  }

  #runs(): void {
    this.#stillness?.[Symbol.dispose]();
    this.#stillness = undefined;
  }
}
