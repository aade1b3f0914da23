/** The host may reboot, crash and run out of time: what becomes of its guests, on real ones. */
import assert from 'node:assert/strict';
import { rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { openCatalog } from '../../src/catalog/database.ts';
import { insertSaveRun } from '../../src/catalog/save-runs.ts';
import { StasisError } from '../../src/client/index.ts';
import { byName, HostLab } from '../support/host-lab.ts';
import { checkHousekeeping, contentOf } from '../support/rules.ts';

describe('three guests on a host that reboots', () => {
  let host: HostLab;
  before(async () => {
    host = await HostLab.create('policy: {onBoot: restore, timeLimitSeconds: 200}');
    await Promise.all([
      host.running('web', {}, 1),
      host.running('db', { order: 10, delaySeconds: 1 }, 2),
      host.running('lazy', { onBoot: 'skip-if-saved' }, 3),
    ]);
  });
  after(() => host[Symbol.asyncDispose]());

  const contents = async () => ({
    web: await contentOf(host.lab, 'web'),
    db: await contentOf(host.lab, 'db'),
    lazy: await contentOf(host.lab, 'lazy'),
  });
  const states = async () =>
    Object.fromEntries((await host.lab.client.listGuests()).map(({ name, state }) => [name, state]));

  test('what a guest does not say of its policy, the host does', async () => {
    const { policy } = await host.lab.client.getGuest('lazy');
    assert.deepEqual(policy, {
      onBoot: 'skip-if-saved',
      onShutdown: 'save',
      order: 100,
      delaySeconds: 0,
      timeLimitSeconds: 200,
      fallback: 'none',
    });
  });

  test('a plan is only a plan', async () => {
    const plan = await host.lab.client.planSaveAll({ budgetSeconds: 90 });
    const actions = plan.guests.map(({ guest, action }) => [guest, action]);
    assert.deepEqual(Object.fromEntries(actions), { db: 'save', lazy: 'save', web: 'save' });
    for (const { bytes, endsAfterSeconds } of plan.guests)
      assert.ok(bytes > 0 && (endsAfterSeconds ?? 0) > 0);
    const tight = await host.lab.client.planSaveAll({ budgetSeconds: 0.2 });
    assert.deepEqual(new Set(tight.guests.map(({ action }) => action)), new Set(['shutdown']));
    assert.deepEqual(await states(), { web: 'running', db: 'running', lazy: 'running' });
  });

  test('after a save of all and a boot each is where it was; what is to be left waits for restore-all', async () => {
    const then = await contents();
    const outcomes = byName(await host.lab.client.saveAll({ budgetSeconds: 120 }));
    assert.deepEqual(
      Object.values(outcomes).map(({ outcome, message }) => [outcome, message]),
      [
        ['done', 'saved'],
        ['done', 'saved'],
        ['done', 'saved'],
      ],
    );
    assert.deepEqual(await states(), { web: 'stopped', db: 'stopped', lazy: 'stopped' });
    const { shutdown } = await host.lab.client.hostStatus();
    assert.equal(shutdown?.clean, true);

    await host.goDown();
    await host.boot();
    const booted = await host.booted();
    assert.equal(booted['web']?.message, 'restored');
    assert.equal(booted['db']?.message, 'restored');
    assert.equal(booted['lazy']?.outcome, 'skipped');
    const { boot } = await host.lab.client.hostStatus();
    assert.deepEqual([boot.after, boot.ran], ['clean', []]);
    const starts = (await host.lab.client.listOperations()).filter(({ kind }) => kind === 'start');
    const started = starts.map(({ guest, createdAt }) => ({ guest, at: Date.parse(createdAt) }));
    const [web, db] = [
      started.find(({ guest }) => guest === 'web'),
      started.find(({ guest }) => guest === 'db'),
    ];
    assert.ok((web?.at ?? 0) - (db?.at ?? Infinity) >= 1000, 'the lower order first, and its delay after it');

    await host.lab.client.restoreAll();
    assert.deepEqual(await states(), { web: 'running', db: 'running', lazy: 'running' });
    assert.deepEqual(await contents(), then);
    assert.deepEqual(await host.lab.client.listSaveImages(), [], 'the default images are used up');
    for (const name of ['web', 'db', 'lazy']) {
      await using witness = await host.lab.witness(name);
      const { counter } = await witness.status();
      while ((await witness.status()).counter <= counter) await witness.ping();
    }
  });

  test('a start of the daemon is no boot', async () => {
    await host.lab.client.stop('web');
    await host.lab.endDaemon();
    await host.startDaemon();
    assert.equal((await states())['web'], 'stopped');
    const boots = (await host.lab.client.listEvents({ limit: 1000 })).filter(
      ({ action }) => action === 'host-boot',
    );
    assert.equal(boots.filter(({ message }) => message.includes('clean')).length, 1);
    await host.lab.client.start('web');
  });

  test('after a crash of the host guests start from their disks, and an image of before is kept', async () => {
    await host.lab.client.createSaveImage('web', { live: true });
    await host.goDown();
    await host.boot();
    const booted = await host.booted();
    const { boot } = await host.lab.client.hostStatus();
    assert.deepEqual([boot.after, boot.ran.toSorted()], ['crash', ['db', 'lazy', 'web']]);
    assert.match(booted['web']?.message ?? '', /^started: its default image, which is kept/);
    assert.equal(booted['db']?.message, 'started: it has no default image');
    assert.deepEqual(await states(), { web: 'running', db: 'running', lazy: 'running' });
    assert.equal((await host.lab.client.getSaveImageInfo('web')).state, 'ready');
    await using witness = await host.lab.witness('web');
    assert.equal((await witness.status()).areaMiB, 0, 'it was booted');
  });

  test('a restore that fails keeps its image, and the fallback decides; the others are restored', async () => {
    for (const [name, seed] of [
      ['web', 4],
      ['db', 5],
    ] as const) {
      await using witness = await host.lab.witness(name);
      await witness.fill(seed, 8);
    }
    await host.lab.client.setPolicy('lazy', { onBoot: 'restore', fallback: 'start' });
    const then = await contentOf(host.lab, 'db');
    await host.lab.client.saveAll();
    const files: string[] = [];
    for (const name of ['web', 'lazy']) {
      const { memoryFile } = await host.lab.client.getSaveImageInfo(name);
      await rename(memoryFile, `${memoryFile}.whole`);
      await writeFile(memoryFile, 'not a memory file');
      files.push(memoryFile);
    }
    await host.goDown();
    await host.boot();
    const booted = await host.booted();
    assert.match(booted['web']?.message ?? '', /^not restored: .*its image is kept, and it stays stopped$/);
    assert.match(booted['lazy']?.message ?? '', /^not restored: .*its image is kept, and it was started/);
    assert.deepEqual(await states(), { web: 'stopped', db: 'running', lazy: 'running' });
    assert.deepEqual(await contentOf(host.lab, 'db'), then);
    const [operation] = (await host.lab.client.listOperations()).filter(({ kind }) => kind === 'restore-all');
    assert.equal(operation?.error?.code, 'restore-failed');

    for (const file of files) await rename(`${file}.whole`, file);
    await host.lab.client.restoreAll();
    assert.equal((await states())['web'], 'running');
    await using witness = await host.lab.witness('web');
    assert.equal((await witness.status()).areaMiB, 8, 'the image that was kept restores');
    assert.equal((await witness.checksum()).errors, 0);
  });

  test('a daemon that is killed while it saves all, or starts all: it is begun again, and all come back', async () => {
    {
      await using witness = await host.lab.witness('lazy');
      await witness.fill(6, 8);
    }
    const then = await contents();
    const { shutdown } = await host.lab.client.hostStatus();
    await host.lab.endDaemon();
    await host.startDaemon({ STASIS_FAILPOINT: 'save/verify:before=kill' });
    const cut = assert.rejects(host.lab.client.saveAll());
    await host.lab.daemonEnded();
    await host.startDaemon();
    await cut;
    assert.deepEqual(
      (await host.lab.client.hostStatus()).shutdown,
      shutdown,
      'no mark for what was cut short',
    );
    await host.lab.client.saveAll();
    assert.deepEqual(await states(), { web: 'stopped', db: 'stopped', lazy: 'stopped' });

    await host.goDown();
    await host.boot({ STASIS_FAILPOINT: 'restore/commit:after=kill' });
    await host.lab.daemonEnded();
    await host.startDaemon();
    const booted = await host.booted();
    assert.deepEqual(Object.keys(booted).toSorted(), ['db', 'lazy', 'web']);
    const { boot } = await host.lab.client.hostStatus();
    assert.equal(boot.after, 'clean');
    assert.notEqual(boot.settledAt, null);
    assert.deepEqual(await states(), { web: 'running', db: 'running', lazy: 'running' });
    assert.deepEqual(await contents(), then);
  });
});

describe('a host whose time is short', () => {
  let host: HostLab;
  before(async () => {
    host = await HostLab.create();
    await Promise.all([host.running('polite', {}, 1), host.running('deaf', {}, 2, 'noacpi')]);
  });
  after(() => host[Symbol.asyncDispose]());

  test('what does not fit is shut down from the beginning, and stopped at the end if it ignores that', async () => {
    await host.lab.endDaemon();
    await rememberSaveRun(host, { bytes: 1e9, durationMs: 200_000 });
    await host.startDaemon();
    const outcomes = await guestsOfFailure(host.lab.client.saveAll({ budgetSeconds: 20 }));
    assert.match(outcomes['polite']?.message ?? '', /^shut down: with it the saves would take/);
    assert.match(outcomes['deaf']?.message ?? '', /^stopped: with it .*; (guest deaf|its shutdown) did not/);
    assert.deepEqual(await host.lab.qemuProcesses(), []);
    assert.equal(
      (await host.lab.client.hostStatus()).shutdown?.clean,
      true,
      'no guest was left to the power',
    );
  });

  test('a save that will not end in time is given up in time', async () => {
    await host.lab.endDaemon();
    await rememberSaveRun(host, { bytes: 100e9, durationMs: 100_000 });
    await host.startDaemon({ STASIS_FAILPOINT: 'save/capture:before=halt' });
    const { pid } = await host.lab.client.start('deaf');
    await (await host.lab.witness('deaf')).close();
    const ended = guestsOfFailure(host.lab.client.saveAll({ budgetSeconds: 16 }));
    await host.lab.daemonHalted();
    process.kill(pid ?? 0, 'SIGSTOP'); // a disk that answers no more looks like this
    process.kill(host.lab.daemonPid, 'SIGCONT');
    const outcomes = await ended;
    assert.match(outcomes['deaf']?.message ?? '', /^stopped: its save would not have ended in time/);
    assert.deepEqual(await host.lab.qemuProcesses(), []);
    assert.equal((await host.lab.client.getGuest('deaf')).state, 'stopped');
    await checkHousekeeping(host.lab, 'deaf');
  });
});

/** As if all guests had been saved before, at that speed. */
async function rememberSaveRun(
  { lab }: HostLab,
  run: { readonly bytes: number; readonly durationMs: number },
): Promise<void> {
  const catalog = await openCatalog(join(lab.paths.data, 'catalog.sqlite'));
  try {
    for (let count = 0; count < 9; count += 1)
      await insertSaveRun(catalog, { at: new Date().toISOString(), ...run });
  } finally {
    await catalog.destroy();
  }
}

async function guestsOfFailure(work: Promise<unknown>) {
  try {
    await work;
  } catch (error) {
    if (!(error instanceof StasisError) || error.code !== 'capture-failed') throw error;
    const { guests } = error.details ?? {};
    return byName(Array.isArray(guests) ? guests : []);
  }
  throw new Error('all guests ended as their policies say');
}

test('a guest that was being undefined when its host went down leaves, and is not started', async () => {
  await using host = await HostLab.create('policy: {onBoot: start}');
  const { client } = host.lab;
  for (const name of ['web', 'old']) await host.running(name, {}, 1);
  await client.createSaveImage('old', { name: 'a', live: true });
  {
    await using witness = await host.lab.witness('old');
    await witness.write('vda', 32, 16, 1);
  }
  await client.stop('old');
  await host.lab.failAt('undefine/fold-layer:before=kill');
  const gone = client.undefineGuest('old', { deleteImages: true }); // it asks the next daemon again
  await host.lab.daemonEnded();
  await host.lab.failAt();
  await host.goDown();
  await host.boot();
  const booted = await host.booted();
  await gone;
  assert.deepEqual(
    Object.values(booted).map(({ name, outcome }) => [name, outcome]),
    [['web', 'done']],
  );
  assert.deepEqual(
    (await client.listGuests()).map(({ name, state }) => [name, state]),
    [['web', 'running']],
  );
});
