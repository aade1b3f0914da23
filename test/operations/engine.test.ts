/** Who waits for whom: an operation holds its guest from before it is planned until it has ended. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { test } from 'node:test';
import { sql } from 'kysely';
import pino from 'pino';
import { openCatalog, type CatalogDatabase } from '../../src/catalog/database.ts';
import { findOperation, listOperations } from '../../src/catalog/operations.ts';
import { StasisError } from '../../src/errors.ts';
import { AuditTrail } from '../../src/operations/audit-trail.ts';
import { OperationEngine } from '../../src/operations/engine.ts';
import { EventLog } from '../../src/operations/event-log.ts';
import type { OperationHandle, Procedure } from '../../src/operations/procedure.ts';
import { submitWhenFree } from '../../src/policy/guest-work.ts';

const SUBMISSION = {
  kind: 'pause',
  subject: { guest: null, guestName: 'web1', image: null },
  args: {},
} as const;
const NEVER = new AbortController().signal;

async function openEngine(
  retryMs?: number,
): Promise<AsyncDisposable & { readonly engine: OperationEngine; readonly catalog: CatalogDatabase }> {
  const home = await mkdtemp(join(tmpdir(), 'stasis-engine-'));
  const catalog = await openCatalog(join(home, 'catalog.sqlite'));
  const log = pino({ level: 'silent' });
  const engine = new OperationEngine({
    catalog,
    events: new EventLog(catalog),
    audit: new AuditTrail(catalog),
    log,
    ...(retryMs === undefined ? {} : { retryMs }),
  });
  return {
    engine,
    catalog,
    async [Symbol.asyncDispose]() {
      engine[Symbol.dispose]();
      await catalog.destroy();
      await rm(home, { recursive: true });
    },
  };
}

/** A procedure that is planned for as long as the test says. */
function planned(plan: Promise<void>): Procedure<object, null> {
  return {
    name: 'planned',
    cancellable: true,
    plan: async () => {
      await plan;
      return null;
    },
    run: (_plan, operation) => operation.commit(() => Promise.resolve()),
    undo: () => Promise.resolve(),
    finish: () => Promise.resolve(),
  };
}

test('who waits for a guest whose operation is still being planned waits, and keeps nobody from their work', async () => {
  await using lab = await openEngine();
  const { engine } = lab;
  const plan = Promise.withResolvers<void>();
  const first = engine.submit(planned(plan.promise), SUBMISSION);
  await nextTurn();
  assert.equal(engine.isIdle, false, 'a daemon that is told to end must not let go of the catalog under it');
  const holder = engine.holderOf('web1')?.record.id ?? '';
  let hasEnded = false;
  const ended = engine.whenEnded(holder).then(() => (hasEnded = true));
  await nextTurn();
  assert.equal(hasEnded, false);

  const second = submitWhenFree(engine, planned(Promise.resolve()), SUBMISSION, NEVER);
  await nextTurn(); // never comes, if that asks again and again without a pause
  plan.resolve();
  await (
    await first
  ).settled;
  await ended;
  await (
    await second
  ).settled;
  assert.ok(engine.isIdle && engine.holderOf('web1') === undefined);
});

test('an operation that comes to nothing while it is planned is waited for no longer than that', async () => {
  await using lab = await openEngine();
  const { engine } = lab;
  const plan = Promise.withResolvers<void>();
  const first = engine.submit(planned(plan.promise), SUBMISSION);
  const refused = assert.rejects(first, { code: 'invalid-state' });
  await nextTurn();
  const second = submitWhenFree(engine, planned(Promise.resolve()), SUBMISSION, NEVER);
  plan.reject(new StasisError('invalid-state', 'it can not be'));
  await refused;
  await (
    await second
  ).settled;

  const stop = new AbortController();
  stop.abort(new StasisError('cancelled', 'enough'));
  await assert.rejects(engine.whenEnded('any', stop.signal), { code: 'cancelled' });
});

/** A procedure that goes on until something else is to be done, before its commit or after it. */
function waiting(givesWay: 'uncommitted' | 'always', when: 'before' | 'after', cancellable: boolean) {
  const { promise: waits, resolve } = Promise.withResolvers<void>();
  const wait = async ({ signal }: OperationHandle) => {
    resolve();
    await once(signal, 'abort');
  };
  const procedure: Procedure<object, null> = {
    name: `${givesWay} ${when}`,
    cancellable,
    givesWay,
    plan: () => Promise.resolve(null),
    async run(_plan, operation) {
      if (when === 'before') await wait(operation);
      await operation.commit(() => Promise.resolve());
    },
    undo: () => Promise.resolve(),
    finish: (_plan, operation) => (when === 'after' ? wait(operation) : Promise.resolve()),
  };
  return { procedure, waits };
}

test('what can wait gives way to what can wait less, and to nothing else', async () => {
  await using lab = await openEngine();
  const { engine, catalog } = lab;
  const always = waiting('always', 'after', false);
  const uncommitted = waiting('uncommitted', 'before', true);
  const housekeeping = await engine.submit(always.procedure, SUBMISSION);
  await always.waits;
  await assert.rejects(engine.submit(always.procedure, SUBMISSION), { code: 'busy' });
  const unhurried = await engine.submit(uncommitted.procedure, SUBMISSION);
  await housekeeping.settled;
  await uncommitted.waits;
  for (const { procedure } of [always, uncommitted])
    await assert.rejects(engine.submit(procedure, SUBMISSION), { code: 'busy' });
  const asked = await engine.submit(planned(Promise.resolve()), SUBMISSION);
  await assert.rejects(unhurried.settled, { code: 'cancelled' });
  await asked.settled;
  const states = await Promise.all(
    [housekeeping, unhurried, asked].map(async ({ id }) => (await findOperation(catalog, id))?.state),
  );
  assert.deepEqual(states, ['done', 'cancelled', 'done']);
});

test('what was asked for is not given up for what can wait, but cuts its end short for it', async () => {
  await using lab = await openEngine();
  const { engine } = lab;
  const other = waiting('uncommitted', 'before', true);
  for (const when of ['before', 'after'] as const) {
    const housekeeping = waiting('always', 'after', false);
    const asked = waiting('always', when, true);
    const before = await engine.submit(housekeeping.procedure, SUBMISSION);
    await housekeeping.waits;
    const operation = await engine.submit(asked.procedure, SUBMISSION);
    await before.settled;
    await asked.waits;
    await assert.rejects(engine.submit(housekeeping.procedure, SUBMISSION), { code: 'busy' });
    const unhurried = engine.submit(other.procedure, SUBMISSION);
    if (when === 'before') await assert.rejects(unhurried, { code: 'busy' });
    else await unhurried;
    const urgent = await engine.submit(planned(Promise.resolve()), SUBMISSION);
    await urgent.settled;
    if (when === 'before') await assert.rejects(operation.settled, { code: 'cancelled' });
    else await operation.settled;
  }
});

/** A procedure that fails, and is undone as the test says. */
function failing(undo: (operation: OperationHandle) => Promise<void>): Procedure<object, null> {
  return {
    name: 'failing',
    cancellable: true,
    plan: () => Promise.resolve(null),
    run: () => Promise.reject(new StasisError('storage-failed', 'it did not work')),
    undo: (_plan, operation) => undo(operation),
    finish: () => Promise.resolve(),
  };
}

const OF_GUEST = { ...SUBMISSION, subject: { ...SUBMISSION.subject, guest: 'a-guest' } };

test('an undo that fails where nothing can be recorded ends the operation, and is tried again before the next one', async () => {
  await using lab = await openEngine();
  const { engine, catalog } = lab;
  let attempts = 0;
  const procedure = failing(async () => {
    attempts += 1;
    if (attempts > 1) return;
    await sql`pragma query_only = on`.execute(catalog);
    throw new StasisError('no-space', 'no space left');
  });
  engine.register(procedure);
  const { id, settled } = await engine.submit(procedure, OF_GUEST);
  await assert.rejects(settled, { code: 'storage-failed', message: 'it did not work' });
  assert.ok(engine.isIdle);
  await assert.rejects(engine.submit(planned(Promise.resolve()), OF_GUEST), {
    code: 'storage-failed',
    message: /catalog/,
  });

  await sql`pragma query_only = off`.execute(catalog);
  await (
    await engine.submit(planned(Promise.resolve()), OF_GUEST)
  ).settled;
  assert.equal(attempts, 3, 'undone again by each of the two');
  assert.deepEqual(await findOperation(catalog, id).then((record) => [record?.state, record?.settled]), [
    'failed',
    1,
  ]);
});

test('what is settled before the next operation holds its guest as that one does', async () => {
  await using lab = await openEngine();
  const held: boolean[] = [];
  const procedure = failing(async (operation) => {
    held.push(await operation.whileHolding(['a-guest', 'another'], () => Promise.resolve()));
    if (held.length === 1) throw new StasisError('no-space', 'no space left');
  });
  lab.engine.register(procedure);
  const { settled } = await lab.engine.submit(procedure, OF_GUEST);
  await assert.rejects(settled);
  await (
    await lab.engine.submit(planned(Promise.resolve()), OF_GUEST)
  ).settled;
  assert.deepEqual(held, [true, true]);
});

test('what makes a guest holds it, and is settled before anything else is done to it', async () => {
  await using lab = await openEngine();
  const { engine } = lab;
  const made = Promise.withResolvers<void>();
  const goesOn = Promise.withResolvers<void>();
  let attempts = 0;
  const making: Procedure<object, null> = {
    ...planned(Promise.resolve()),
    name: 'making',
    async finish() {
      attempts += 1;
      made.resolve();
      if (attempts === 1) await goesOn.promise;
    },
  };
  engine.register(making);
  const { settled } = await engine.submit(making, SUBMISSION);
  await made.promise;
  await assert.rejects(engine.submit(planned(Promise.resolve()), OF_GUEST), { code: 'busy' });
  goesOn.reject(new StasisError('no-space', 'no space left'));
  await assert.rejects(settled, { code: 'no-space' });
  await (
    await engine.submit(planned(Promise.resolve()), OF_GUEST)
  ).settled;
  assert.equal(attempts, 2);
  assert.ok(engine.isIdle);
});

test('what could not be undone is tried again by itself', async () => {
  await using lab = await openEngine(1);
  const ends = Promise.withResolvers<void>();
  let attempts = 0;
  const procedure = failing(() => {
    attempts += 1;
    if (attempts === 3) lab.engine.onEnded(() => ends.resolve());
    return attempts < 3 ? Promise.reject(new StasisError('no-space', 'no space left')) : Promise.resolve();
  });
  lab.engine.register(procedure);
  const { id, settled } = await lab.engine.submit(procedure, OF_GUEST);
  await assert.rejects(settled, { code: 'storage-failed' });
  await ends.promise;
  assert.equal((await findOperation(lab.catalog, id))?.settled, 1);
});

test('an operation that is recorded, and whose beginning can not be told, has failed', async () => {
  await using lab = await openEngine();
  const procedure = planned(Promise.resolve());
  lab.engine.register(procedure);
  await sql`create trigger full before insert on events begin select raise(abort, 'no more events'); end`.execute(
    lab.catalog,
  );
  await assert.rejects(lab.engine.submit(procedure, OF_GUEST), { code: 'internal' });
  assert.ok(lab.engine.isIdle && lab.engine.holderOf('a-guest') === undefined);
  await sql`drop trigger full`.execute(lab.catalog);
  const [operation] = await listOperations(lab.catalog, 1);
  assert.deepEqual([operation?.state, operation?.settled], ['failed', 1]);
});
