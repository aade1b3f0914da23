/** The scheduler on a real catalog, with a clock of the test's own and runs that take as long as the test says. */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { after, test } from 'node:test';
import pino from 'pino';
import { openCatalog, type CatalogDatabase } from '../../src/catalog/database.ts';
import { insertSchedule, settleRun, type RunRecord } from '../../src/catalog/schedules.ts';
import { specOf } from '../../src/guests/schedules.ts';
import type { LiveOperation } from '../../src/operations/operation.ts';
import { EventLog } from '../../src/operations/event-log.ts';
import type { Clock } from '../../src/policy/clock.ts';
import { Scheduler } from '../../src/policy/scheduler.ts';
import { insertGuestNamed } from '../support/own-catalog.ts';

const START_MS = Date.parse('2026-11-24T12:00:30Z');
const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;

/** Time goes on only when the test says so; whoever sleeps wakes when it has. */
class TestClock implements Clock {
  nowMs = START_MS;
  readonly #sleepers = new Set<{ untilMs: number; readonly wake: () => void }>();

  now(): number {
    return this.nowMs;
  }

  async sleep(durationMs: number, signal: AbortSignal): Promise<void> {
    if (signal.aborted) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    const sleeper = { untilMs: this.nowMs + durationMs, wake: resolve };
    this.#sleepers.add(sleeper);
    signal.addEventListener('abort', () => resolve(), { once: true });
    await promise;
    this.#sleepers.delete(sleeper);
  }

  /** Lets time pass, and all that happens in it happen. */
  async pass(durationMs: number): Promise<void> {
    const endMs = this.nowMs + durationMs;
    for (;;) {
      await settled();
      const [next] = [...this.#sleepers].toSorted((a, b) => a.untilMs - b.untilMs);
      if (next === undefined || next.untilMs > endMs) break;
      this.nowMs = Math.max(this.nowMs, next.untilMs);
      next.wake();
    }
    this.nowMs = endMs;
  }

  /** Somebody sets it. Sleepers sleep as long as they were to. */
  set(byMs: number): void {
    this.nowMs += byMs;
    for (const sleeper of this.#sleepers) sleeper.untilMs += byMs;
  }
}

/** The catalog answers within the process: a few turns of the event loop, and nobody has anything left to do. */
async function settled(): Promise<void> {
  for (let turn = 0; turn < 8; turn += 1) await nextTurn();
}

class Fixture implements AsyncDisposable {
  readonly clock = new TestClock();
  readonly begun: string[] = [];
  mostAtOnce = 0;
  runMs = MINUTE_MS;
  hostIsBusy = false;
  #atOnce = 0;
  #scheduler: Scheduler | undefined;
  readonly #catalog: CatalogDatabase;
  readonly #home: string;

  private constructor(home: string, catalog: CatalogDatabase) {
    this.#home = home;
    this.#catalog = catalog;
  }

  static async create(): Promise<Fixture> {
    const home = await mkdtemp(join(tmpdir(), 'stasis-scheduler-'));
    return new Fixture(home, await openCatalog(join(home, 'catalog.sqlite')));
  }

  async schedule(guest: string, cron: string, fields: { missed?: 'catch-up' | 'skip' } = {}): Promise<void> {
    await insertGuestNamed(this.#catalog, guest);
    const at = new Date(this.clock.nowMs).toISOString();
    const spec = { ...specOf({ name: 'often', cron }), timeZone: 'UTC', ...fields };
    await insertSchedule(this.#catalog, {
      ...{ guest, name: 'often', spec: JSON.stringify(spec), paused: 0, createdAt: at, decidedUntil: at },
    });
  }

  start(): void {
    const log = pino({ level: 'silent' });
    const events = new EventLog(this.#catalog);
    this.#scheduler = new Scheduler({
      host: { catalog: this.#catalog, events, log },
      engine: { holderOf: () => (this.hostIsBusy ? BUSY : undefined), onEnded: () => undefined },
      parallel: 2,
      clock: this.clock,
      work: { carryOut: (run, signal) => this.#carryOut(run, signal), takeUp: () => Promise.resolve() },
    });
    this.#scheduler.start();
  }

  /** As when the daemon dies: what is under way comes to nothing. */
  async die(): Promise<void> {
    await this.#scheduler?.[Symbol.asyncDispose]();
  }

  async #carryOut(run: RunRecord, signal: AbortSignal): Promise<void> {
    this.begun.push(`${run.guest} ${run.dueAt.slice(11, 16)}`);
    this.#atOnce += 1;
    this.mostAtOnce = Math.max(this.mostAtOnce, this.#atOnce);
    await this.clock.sleep(this.runMs, signal);
    this.#atOnce -= 1;
    if (!signal.aborted) await settleRun(this.#catalog, run, { state: 'done', message: '' });
  }

  async runs(guest: string): Promise<string[]> {
    const rows = await this.#catalog
      .selectFrom('scheduleRuns')
      .selectAll()
      .where('guest', '=', guest)
      .orderBy('id')
      .execute();
    return rows.map(({ dueAt, state }) => `${dueAt.slice(11, 16)} ${state}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.die();
    await this.#catalog.destroy();
    await rm(this.#home, { recursive: true, force: true });
  }
}

/** Only that there is one is looked at. */
const BUSY: LiveOperation = {
  steps: [],
  bytesDone: 0,
  bytesTotal: 0,
  cancellable: false,
  record: {
    ...{ id: '', procedure: 'save-all', parent: null, guest: null, guestName: '(host)', image: null },
    ...{ committed: 0, args: '', plan: '', steps: '', warnings: '', outcomes: '', error: null },
    ...{
      settled: 0,
      createdAt: '',
      finishedAt: null,
      caller: null,
      requestKey: null,
      requestHash: null,
      kind: 'save-all',
      state: 'running',
    },
  },
};

const fixtures: Fixture[] = [];
async function fixture(): Promise<Fixture> {
  const made = await Fixture.create();
  fixtures.push(made);
  return made;
}
after(async () => {
  for (const made of fixtures) await made[Symbol.asyncDispose]();
});

test('guests that are due together are saved so many at once, and each due time once', async () => {
  const there = await fixture();
  for (const guest of ['a', 'b', 'c', 'd', 'e']) await there.schedule(guest, '*/10 * * * *');
  there.start();
  await there.clock.pass(25 * MINUTE_MS);
  assert.equal(there.mostAtOnce, 2);
  assert.equal(new Set(there.begun).size, 10);
  assert.equal(there.begun.length, 10);
  assert.deepEqual(await there.runs('e'), ['12:10 done', '12:20 done']);
});

test('one that is still under way when the next is due goes on, and the next is skipped', async () => {
  const there = await fixture();
  await there.schedule('a', '*/10 * * * *');
  there.runMs = 15 * MINUTE_MS;
  there.start();
  await there.clock.pass(45 * MINUTE_MS);
  assert.deepEqual(await there.runs('a'), ['12:10 done', '12:20 skipped', '12:30 done', '12:40 skipped']);
});

test('a run that a daemon died in is begun again by the next, once', async () => {
  const there = await fixture();
  await there.schedule('a', '0 * * * *');
  there.start();
  await there.clock.pass(HOUR_MS - 15_000); // 13:00:15
  assert.deepEqual(await there.runs('a'), ['13:00 waiting']);
  await there.die();
  await there.clock.pass(10 * MINUTE_MS);
  there.start();
  await there.clock.pass(30 * MINUTE_MS);
  assert.deepEqual(there.begun, ['a 13:00', 'a 13:00']);
  assert.deepEqual(await there.runs('a'), ['13:00 done']);
});

test('what was due while no daemon ran is made up for by one run, or by none', async () => {
  const there = await fixture();
  await there.schedule('a', '0 * * * *');
  await there.schedule('b', '0 * * * *', { missed: 'skip' });
  await there.clock.pass(5.5 * HOUR_MS);
  there.start();
  await there.clock.pass(MINUTE_MS / 2);
  assert.deepEqual(await there.runs('a'), ['17:00 waiting']);
  assert.deepEqual(await there.runs('b'), ['17:00 skipped']);
  await there.clock.pass(HOUR_MS);
  assert.deepEqual(await there.runs('a'), ['17:00 done', '18:00 done']);
  assert.deepEqual(await there.runs('b'), ['17:00 skipped', '18:00 done']);
});

test('a clock that is set ahead and back again runs nothing twice', async () => {
  const there = await fixture();
  await there.schedule('a', '0 * * * *');
  there.start();
  await there.clock.pass(HOUR_MS + 2 * MINUTE_MS); // 13:00 is done
  there.clock.set(6 * HOUR_MS); // it is 19:02:30
  await there.clock.pass(10 * MINUTE_MS);
  assert.deepEqual(await there.runs('a'), ['13:00 done', '19:00 done']);
  there.clock.set(-6 * HOUR_MS); // 13:12:30 again
  await there.clock.pass(6.5 * HOUR_MS);
  assert.deepEqual(
    (await there.runs('a')).toSorted(),
    ['13:00 done', '14:00 done', '15:00 done', '16:00 done', '17:00 done', '18:00 done', '19:00 done'],
    'each once, that which was run ahead of its time too',
  );
  there.clock.set(-2 * HOUR_MS); // 17:42:30: less than three hours are waited for
  await there.clock.pass(2.5 * HOUR_MS);
  assert.deepEqual((await there.runs('a')).slice(7), ['20:00 done']);
});

test('while the host starts or ends its guests nothing begins', async () => {
  const there = await fixture();
  await there.schedule('a', '*/10 * * * *');
  there.hostIsBusy = true;
  there.start();
  await there.clock.pass(10 * MINUTE_MS);
  assert.deepEqual(await there.runs('a'), []);
  there.hostIsBusy = false;
  await there.clock.pass(MINUTE_MS);
  assert.deepEqual(await there.runs('a'), ['12:10 waiting']);
});
