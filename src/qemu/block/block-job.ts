import { StasisError } from '../../errors.ts';
import type { EventName, QmpEvent } from '../qmp/commands.ts';
import type { BlockJobInfo } from '../qmp/results.ts';
import type { QmpWatch } from '../qmp/watch.ts';
import type { QmpClient } from '../qmp/client.ts';
import { holdDisks } from '../process/run-state.ts';

/** How often a job is asked for its progress, of which QEMU sends no event. */
const POLL_INTERVAL_MS = 500;

const JOB_EVENTS = [
  'BLOCK_JOB_READY',
  'BLOCK_JOB_PENDING',
  'BLOCK_JOB_COMPLETED',
  'BLOCK_JOB_CANCELLED',
] as const;
type JobEventName = (typeof JOB_EVENTS)[number] & EventName;

export interface BlockJobOptions {
  readonly jobId: string;
  /** Bytes per second; no limit when absent. */
  readonly speedBytesPerSecond?: number | undefined;
  readonly onProgress?:
    | ((progress: { readonly bytesDone: number; readonly bytesTotal: number }) => void)
    | undefined;
  /** Cancels the job and waits for its end. The guest's data is the same either way. */
  readonly signal?: AbortSignal | undefined;
}

/**
 * One running block job, followed from before its start. Jobs dismiss themselves at their end (QEMU's default), so
 * that end comes as an event and leaves nothing to clean up. Disposing cancels a job that hasn't ended.
 */
export class BlockJob implements AsyncDisposable {
  readonly #qmp: QmpClient;
  readonly #options: BlockJobOptions;
  readonly #watch: QmpWatch<JobEventName>;
  #hasEnded = false;

  private constructor(qmp: QmpClient, options: BlockJobOptions) {
    this.#qmp = qmp;
    this.#options = options;
    this.#watch = qmp.watch(...JOB_EVENTS);
  }

  /**
   * @param start sends the command that starts the job of this id
   * @throws StasisError what `start` throws
   */
  static async start(
    qmp: QmpClient,
    options: BlockJobOptions,
    start: () => Promise<unknown>,
  ): Promise<BlockJob> {
    const job = new BlockJob(qmp, options);
    try {
      await holdDisks(qmp);
      await start();
      return job;
    } catch (error) {
      job.#watch[Symbol.dispose]();
      throw error;
    }
  }

  /** The job of this id as QEMU tells of it, if it hasn't ended. */
  async info(): Promise<BlockJobInfo | undefined> {
    return (await this.#qmp.execute('query-block-jobs')).find(({ device }) => device === this.#options.jobId);
  }

  /** Waits until both ends are equal and kept so (a commit of the active layer). */
  async ready(): Promise<void> {
    await this.#next('BLOCK_JOB_READY', this.#options.signal);
  }

  /** Waits until nothing is missing but the change of the chain (a job that was started with `auto-finalize` off). */
  async pending(): Promise<void> {
    await this.#next('BLOCK_JOB_PENDING', this.#options.signal);
  }

  /** Tells a pending job to change the chain, and waits for its end. Not to be interrupted. */
  async finalize(): Promise<void> {
    await this.#qmp.execute('job-finalize', { id: this.#options.jobId });
    await this.#next('BLOCK_JOB_COMPLETED', undefined);
  }

  /** Tells a ready job to switch over, and waits for its end. Not to be interrupted. */
  async complete(): Promise<void> {
    await this.#qmp.execute('job-complete', { id: this.#options.jobId });
    await this.#next('BLOCK_JOB_COMPLETED', undefined);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    using watch = this.#watch;
    if (this.#hasEnded || this.#qmp.isClosed || (await this.info()) === undefined) return;
    try {
      await this.#qmp.execute('job-cancel', { id: this.#options.jobId });
    } catch (error) {
      if ((await this.info()) === undefined) return; // it has just ended by itself
      throw error;
    }
    await watch.next((event) => this.#isEnd(event));
  }

  async #next(wanted: JobEventName, signal: AbortSignal | undefined): Promise<void> {
    const { jobId, onProgress } = this.#options;
    for (;;) {
      const event = await this.#eventOrPoll(signal);
      if (event === undefined) {
        const info = await this.info();
        if (info !== undefined) onProgress?.({ bytesDone: info.offset, bytesTotal: info.len });
        continue;
      }
      this.#hasEnded = this.#isEnd(event);
      if (event.event === 'BLOCK_JOB_COMPLETED' && event.data.error !== undefined) {
        throw jobError(jobId, event.data.error);
      }
      if (event.event === wanted) {
        if (event.event !== 'BLOCK_JOB_PENDING')
          onProgress?.({ bytesDone: event.data.offset, bytesTotal: event.data.len });
        return;
      }
      if (this.#hasEnded) throw new StasisError('interrupted', `the block job ${jobId} was cancelled`);
    }
  }

  async #eventOrPoll(signal: AbortSignal | undefined): Promise<QmpEvent<JobEventName> | undefined> {
    try {
      return await this.#watch.next((event) => jobOf(event) === this.#options.jobId, {
        signal,
        timeoutMs: POLL_INTERVAL_MS,
      });
    } catch (error) {
      if (error instanceof StasisError && error.code === 'timeout') return undefined;
      throw error;
    }
  }

  #isEnd(event: QmpEvent<JobEventName>): boolean {
    return (
      jobOf(event) === this.#options.jobId &&
      (event.event === 'BLOCK_JOB_COMPLETED' || event.event === 'BLOCK_JOB_CANCELLED')
    );
  }
}

function jobOf({ data }: QmpEvent<JobEventName>): string {
  return 'id' in data ? data.id : data.device;
}

function jobError(jobId: string, desc: string): StasisError {
  const code = /no space left/i.test(desc) ? 'no-space' : 'storage-failed';
  return new StasisError(code, `the block job ${jobId} failed: ${desc}`, {
    details: { jobId, desc },
  });
}
