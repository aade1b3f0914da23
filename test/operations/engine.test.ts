/** Who waits for whom: an operation holds its guest from before it is planned until it has ended. */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { test } from 'node:test';
import pino from 'pino';
import { openCatalog } from '../../src/catalog/database.ts';
import { StasisError } from '../../src/errors.ts';
import { AuditTrail } from '../../src/operations/audit-trail.ts';
import { OperationEngine } from '../../src/operations/engine.ts';
import { EventLog } from '../../src/operations/event-log.ts';
import type { Procedure } from '../../src/operations/procedure.ts';
import { submitWhenFree } from '../../src/policy/guest-work.ts';

const SUBMISSION = {
  kind: 'pause',
  subject: { guest: null, guestName: 'web1', image: null },
  args: {},
} as const;
const NEVER = new AbortController().signal;

async function openEngine(): Promise<AsyncDisposable & { readonly engine: OperationEngine }> {
  const home = await mkdtemp(join(tmpdir(), 'stasis-engine-'));
  const catalog = await openCatalog(join(home, 'catalog.sqlite'));
  const log = pino({ level: 'silent' });
  const engine = new OperationEngine({
    catalog,
    events: new EventLog(catalog),
    audit: new AuditTrail(catalog),
    log,
  });
  return {
    engine,
    async [Symbol.asyncDispose]() {
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
