/**
 * Begins the runs of all schedules when they are due, so many at once. What is decided is in the catalog before anything is done, and
 * that it is done in the transaction that makes the image: a daemon that dies in between is followed by one that does it
 * again, and a due time is never saved for twice.
 */
import { getGuestByUuid } from '../catalog/guests.ts';
import {
  decideRun,
  listSchedules,
  updateSchedule,
  waitingRuns,
  type RunRecord,
  type ScheduleRecord,
} from '../catalog/schedules.ts';
import { storedSpec } from '../guests/schedules.ts';
import type { Host } from '../guests/host.ts';
import type { OperationEngine } from '../operations/engine.ts';
import { SYSTEM_CLOCK, type Clock } from './clock.ts';
import { decide, type Decision } from './due.ts';
import { HOST } from './save-all.ts';
import { tellRun } from './run-events.ts';

/** What is done when a run is to be; neither ever rejects. */
export interface ScheduledWork {
  /** settles the run, unless the signal ends it */
  carryOut(run: RunRecord, signal: AbortSignal): Promise<void>;
  /** what a daemon that died has left to do besides its runs */
  takeUp(signal: AbortSignal): Promise<void>;
}

export interface SchedulerOptions {
  readonly host: Pick<Host, 'catalog' | 'events' | 'log'>;
  readonly engine: Pick<OperationEngine, 'holderOf' | 'onEnded'>;
  readonly work: ScheduledWork;
  /** so many saves of schedules at once */
  readonly parallel: number;
  readonly clock?: Clock;
}

/** Timers don't count the time that the host slept, nor a clock that was set: the time is looked at at least so often. */
const LOOK_MS = 20_000;
const CHANGES = new Set(['define', 'undefine', 'schedule', 'save-all', 'restore-all']);

export class Scheduler implements AsyncDisposable {
  readonly #options: SchedulerOptions;
  readonly #clock: Clock;
  readonly #stop = new AbortController();
  readonly #queue: RunRecord[] = [];
  readonly #underWay = new Map<string, Promise<void>>();
  #wake = new AbortController();
  #loop: Promise<void> = Promise.resolve();
  #takingUp: Promise<void> = Promise.resolve();

  constructor(options: SchedulerOptions) {
    this.#options = options;
    this.#clock = options.clock ?? SYSTEM_CLOCK;
    options.engine.onEnded(({ kind }) => {
      if (CHANGES.has(kind)) this.wake();
    });
  }

  /** Takes up what the daemon before left, and goes on until it is disposed. */
  start(): void {
    this.#loop = this.#run();
  }

  /** Something changed: look again. */
  wake(): void {
    this.#wake.abort();
  }

  /** What is under way goes on; what waits is left to the next daemon. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await Promise.all([this.#loop, this.#takingUp, ...this.#underWay.values()]);
  }

  async #run(): Promise<void> {
    const { log } = this.#options.host;
    try {
      this.#queue.push(...(await waitingRuns(this.#options.host.catalog)));
    } catch (error) {
      log.error({ err: error }, 'what schedules left could not be taken up');
    }
    this.#takingUp = this.#options.work.takeUp(this.#stop.signal);
    while (!this.#stop.signal.aborted) {
      this.#wake = new AbortController();
      let untilMs = Infinity;
      try {
        untilMs = await this.#look();
      } catch (error) {
        // The catalog can't be written, say on a full disk: nothing is decided, and it is looked at again.
        log.error({ err: error }, 'schedules could not be looked at');
      }
      const durationMs = Math.min(LOOK_MS, Math.max(0, untilMs - this.#clock.now()));
      await this.#clock.sleep(durationMs, AbortSignal.any([this.#stop.signal, this.#wake.signal]));
    }
  }

  /** Decides what is due and begins what there is room for. @returns when the next one is due, ms since 1970 */
  async #look(): Promise<number> {
    // While all guests are started or ended nobody can say which ones run.
    if (this.#options.engine.holderOf(HOST.guestName) !== undefined) return Infinity;
    let untilMs = Infinity;
    for (const record of await listSchedules(this.#options.host.catalog)) {
      if (record.paused === 1) continue;
      untilMs = Math.min(untilMs, await this.#decideOrLog(record));
    }
    this.#begin();
    return untilMs;
  }

  /** One that can't be read, or was removed just now, doesn't keep the others. */
  async #decideOrLog(record: ScheduleRecord): Promise<number> {
    try {
      return await this.#decide(record);
    } catch (error) {
      const { guest, name: schedule } = record;
      this.#options.host.log.error({ err: error, guest, schedule }, 'a schedule could not be looked at');
      return Infinity;
    }
  }

  /** @returns when it is due next, ms since 1970 */
  async #decide(record: ScheduleRecord): Promise<number> {
    const { guest, name } = record;
    const spec = storedSpec(record);
    let decidedUntilMs = Date.parse(record.decidedUntil);
    for (;;) {
      const nowMs = this.#clock.now();
      const decision = decide({ guest, name, spec, decidedUntilMs }, nowMs);
      if (decision.what === 'wait') return decision.untilMs ?? Infinity;
      decidedUntilMs = decision.what === 'rewind' ? nowMs : decision.dueMs;
      if (decision.what === 'rewind') await this.#rewind(record, nowMs);
      else await this.#record(record, decision);
    }
  }

  async #rewind(record: ScheduleRecord, nowMs: number): Promise<void> {
    const { catalog, log } = this.#options.host;
    const { guest, name, decidedUntil } = record;
    log.warn(
      { guest, schedule: name, decidedUntil },
      'the clock was far ahead before: it is gone by from now on',
    );
    await updateSchedule(catalog, record, { decidedUntil: new Date(nowMs).toISOString() });
  }

  async #record(
    { guest, name: schedule }: ScheduleRecord,
    decision: Extract<Decision, { dueMs: number }>,
  ): Promise<void> {
    const { host } = this.#options;
    const key = { guest, schedule, dueAt: new Date(decision.dueMs).toISOString() };
    const why = this.#whySkipped(key, decision);
    if (why === null) {
      const isNew = await decideRun(host.catalog, key, { state: 'waiting', endedAt: null, message: '' });
      if (isNew) this.#queue.push(...(await waitingRuns(host.catalog)).filter((run) => isSame(run, key)));
      return;
    }
    const endedAt = new Date(this.#clock.now()).toISOString();
    if (!(await decideRun(host.catalog, key, { state: 'skipped', endedAt, message: why }))) return;
    const { name } = await getGuestByUuid(host.catalog, guest);
    await tellRun(host.events, key, name, 'skipped', why);
  }

  #whySkipped({ guest, schedule }: Pick<RunRecord, 'guest' | 'schedule'>, { what }: Decision): string | null {
    if (what === 'miss') return 'it was due while no daemon ran or the host slept';
    const isThere = (run: RunRecord) => run.guest === guest && run.schedule === schedule;
    const isWaiting = this.#queue.some(isThere) || this.#underWay.has(keyOf({ guest, schedule }));
    return isWaiting ? 'the run before it is still waiting or under way' : null;
  }

  #begin(): void {
    const { parallel, work } = this.#options;
    while (this.#underWay.size < parallel) {
      const run = this.#queue.shift();
      if (run === undefined) return;
      const key = keyOf(run);
      const ended = work.carryOut(run, this.#stop.signal).finally(() => {
        this.#underWay.delete(key);
        this.wake();
      });
      this.#underWay.set(key, ended);
    }
  }
}

/** A schedule has one run under way at most. */
function keyOf({ guest, schedule }: Pick<RunRecord, 'guest' | 'schedule'>): string {
  return `${guest}\n${schedule}`;
}

function isSame(run: RunRecord, key: Pick<RunRecord, 'guest' | 'schedule' | 'dueAt'>): boolean {
  return keyOf(run) === keyOf(key) && run.dueAt === key.dueAt;
}
