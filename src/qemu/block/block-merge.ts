import { setTimeout as delay } from 'node:timers/promises';
import { BlockJob, type BlockJobOptions } from './block-job.ts';
import type { QmpClient } from '../qmp/client.ts';
import { StasisError } from '../../errors.ts';
import { isRunning, resumeGuest } from '../process/run-state.ts';

export interface CommitIntermediateOptions extends BlockJobOptions {
  /** The node that the guest writes to. */
  readonly head: string;
  /** The upper and the lower end of what is merged: all from `top` down goes into `base`. `top` isn't the head. */
  readonly top: string;
  readonly base: string;
  /** What the header of the layer above `top` shall name as its backing file. */
  readonly backingFile: string;
}

/**
 * Merges layers below a running guest's head downwards, into `base`, and takes them out of the chain.
 * @throws StasisError `storage-failed`, `no-space`, `cancelled`, `qemu-failed`, `guest-crashed`. The chain is as it
 *   was then, `base` may have got data that the layers above it hide: to repeat is safe.
 */
export async function commitIntermediate(qmp: QmpClient, options: CommitIntermediateOptions): Promise<void> {
  const start = () =>
    qmp.execute('block-commit', {
      'job-id': options.jobId,
      device: options.head,
      'top-node': options.top,
      'base-node': options.base,
      'backing-file': options.backingFile,
      'auto-finalize': false,
      ...speedOf(options),
    });
  await using job = await BlockJob.start(qmp, options, start);
  await job.pending();
  await job.finalize();
}

export interface StreamOptions extends BlockJobOptions {
  /** The node that is filled. */
  readonly node: string;
  /** The node that stays below it; none when it shall stand alone. */
  readonly baseNode?: string | undefined;
  /** What its header shall name as its backing file then. */
  readonly backingFile?: string | undefined;
}

/**
 * Merges layers upwards: copies into `node` what lies between it and `baseNode`, and takes that out of the chain.
 *
 * QEMU 10.0 flushes nothing when a stream ends: where what was copied is in the file, it keeps in memory, while the file's header
 * names the new backing file already. A QEMU that was killed then left a file that reads as if nothing had been copied, and
 * what it was copied from was gone. So the node is flushed before the chain changes, and after.
 * @throws StasisError as `commitIntermediate`; what was copied by then stays, harmless
 */
export async function streamInto(qmp: QmpClient, options: StreamOptions): Promise<void> {
  const start = () =>
    qmp.execute('block-stream', {
      'job-id': options.jobId,
      device: options.node,
      ...(options.baseNode === undefined ? {} : { 'base-node': options.baseNode }),
      ...(options.backingFile === undefined ? {} : { 'backing-file': options.backingFile }),
      'auto-finalize': false,
      ...speedOf(options),
    });
  await using job = await BlockJob.start(qmp, options, start);
  await job.pending();
  await flushNode(qmp, options.node);
  await job.finalize();
  await flushNode(qmp, options.node);
}

/** Writes what QEMU still has in memory of a node, and syncs its file. QMP has no command for it. */
async function flushNode(qmp: QmpClient, node: string): Promise<void> {
  const said = await qmp.execute('human-monitor-command', { 'command-line': `qemu-io ${node} "flush"` });
  if (said.trim() !== '') throw new StasisError('storage-failed', `${node} can't be flushed: ${said.trim()}`);
}

export interface CommitActiveOptions extends BlockJobOptions {
  /** The node that the guest writes to, and a node below it that it shall write to instead. */
  readonly head: string;
  readonly base: string;
  /** Runs while the guest stands still and both layers read the same: write down that the base takes over. */
  readonly beforePivot: () => Promise<void>;
  /** Runs when the guest's disk is the base, before it can write to it: make that the truth. */
  readonly afterPivot: () => Promise<void>;
}

/**
 * Merges a running guest's head downwards into `base`, which becomes the head. The guest stands still from the
 * moment when both are equal until `afterPivot` is done, so that there is no instant at which a crash leaves writes
 * in one that the records look for in the other.
 *
 * @returns how long the guest stood still; `undefined` when it was paused already
 * @throws StasisError as `commitIntermediate`, or what the two callbacks throw. Before the switch to the base, and
 *   on abort, the guest is as it was. When `afterPivot` fails the guest *stays paused*: letting it write to a layer
 *   that the records don't call its head would be the one thing worse. Repair, then resume.
 */
export async function commitActive(
  qmp: QmpClient,
  options: CommitActiveOptions,
): Promise<{ readonly pauseMs: number | undefined }> {
  const start = () =>
    qmp.execute('block-commit', {
      'job-id': options.jobId,
      device: options.head,
      'base-node': options.base,
      ...speedOf(options),
    });
  await using job = await BlockJob.start(qmp, options, start);
  await job.ready();

  const wasRunning = await isRunning(qmp);
  using pause = qmp.watch('STOP', 'RESUME');
  await qmp.execute('stop');
  try {
    await drained(job);
    await options.beforePivot();
    await job.complete();
  } catch (error) {
    if (wasRunning && !qmp.isClosed) await resumeGuest(qmp);
    throw error;
  }
  await options.afterPivot();
  if (!wasRunning) return { pauseMs: undefined };

  await resumeGuest(qmp);
  const stop = await pause.next(({ event }) => event === 'STOP', { timeoutMs: 10_000 });
  const resume = await pause.next(({ event }) => event === 'RESUME', { timeoutMs: 10_000 });
  return { pauseMs: resume.timestampMs - stop.timestampMs };
}

/** Waits until the job has copied the guest's last writes. QEMU announces that only the first time (READY). */
async function drained(job: BlockJob): Promise<void> {
  for (;;) {
    const info = await job.info();
    if (info === undefined) return; // it has failed: `complete` tells why
    if (info.ready && !info.busy && info.offset === info.len) return;
    await delay(1);
  }
}

function speedOf({ speedBytesPerSecond }: BlockJobOptions): { speed?: number } {
  return speedBytesPerSecond === undefined ? {} : { speed: speedBytesPerSecond };
}
