/** Guests and the daemon: who outlives whom, and what is noticed. */
import assert from 'node:assert/strict';
import { readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { SERIAL_SOCKET } from '../../src/guests/command-line.ts';
import { waitForEnd } from '../../src/qemu/process/process-scan.ts';
import { Lab } from '../support/lab.ts';
import { checkHousekeeping, contentOf } from '../support/rules.ts';

const GUEST = 'web1';

for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
  test(`a guest runs on when its daemon ends by ${signal}, and the next daemon finds it`, async () => {
    await using lab = await Lab.create();
    const witness = await lab.running(GUEST);
    await witness.fill(3, 8);
    await witness.close();
    const content = await contentOf(lab, GUEST);
    const { pid, uuid } = await lab.client.getGuest(GUEST);

    await lab.endDaemon(signal);
    await lab.startDaemon();
    const again = await lab.client.getGuest(GUEST);
    assert.deepEqual(
      { state: again.state, pid: again.pid, uuid: again.uuid },
      { state: 'running', pid, uuid },
    );
    assert.deepEqual(await contentOf(lab, GUEST), content);
    await lab.client.createSaveImage(GUEST, { live: true });
    await checkHousekeeping(lab, GUEST);
  });
}

test('a daemon that is told to stop in the middle of a live save leaves it to the next one', async () => {
  await using lab = await Lab.create();
  const witness = await lab.running(GUEST);
  await witness.fill(3, 32);
  await witness.close();
  await lab.failAt('save/capture:before=halt');
  const cut = lab.client.createSaveImage(GUEST, { name: 'cut', live: true }).catch(() => undefined);
  await lab.daemonHalted();
  await lab.failAt();
  const ended = lab.endDaemon('SIGTERM');
  process.kill(lab.daemonPid, 'SIGCONT');
  await ended;
  await lab.startDaemon();
  await cut;
  await contentOf(lab, GUEST);
  assert.equal((await lab.client.getGuest(GUEST)).state, 'running');
  assert.deepEqual(await lab.client.listSaveImages(GUEST), []);
  await checkHousekeeping(lab, GUEST);
});

test('a guest that does not answer is never ended for that', async () => {
  await using lab = await Lab.create();
  await (await lab.running(GUEST, { disks: 1 })).close();
  const { pid } = await lab.client.getGuest(GUEST);
  process.kill(pid ?? 0, 'SIGSTOP');
  await lab.endDaemon();
  await lab.startDaemon();
  const guest = await lab.client.getGuest(GUEST);
  assert.match(guest.stateReason ?? '', /does not answer/);
  await assert.rejects(lab.client.start(GUEST), { code: 'invalid-state' });
  process.kill(pid ?? 0, 'SIGCONT');
  await lab.endDaemon();
  await lab.startDaemon();
  assert.equal((await lab.client.getGuest(GUEST)).state, 'running');
  await contentOf(lab, GUEST);
});

test('a guest that crashes is seen to have, with its daemon watching or not', async () => {
  await using lab = await Lab.create();
  await lab.running(GUEST, { disks: 1 });
  const crash = async () => process.kill((await lab.client.getGuest(GUEST)).pid ?? 0, 'SIGKILL');
  await using ends = await eventsOf(lab, 'crashed');
  await crash();
  await ends.next();
  const guest = await lab.client.getGuest(GUEST);
  assert.equal(guest.state, 'crashed');
  assert.match(guest.stateReason ?? '', /ended by SIGKILL/);

  await lab.client.start(GUEST);
  assert.equal((await lab.client.getGuest(GUEST)).state, 'running');
  const { pid } = await lab.client.getGuest(GUEST);
  await lab.endDaemon();
  process.kill(pid ?? 0, 'SIGKILL');
  await waitForEnd(pid ?? 0, 10_000);
  await lab.startDaemon();
  assert.equal((await lab.client.getGuest(GUEST)).state, 'crashed');
  await lab.client.stop(GUEST);
  assert.equal((await lab.client.getGuest(GUEST)).state, 'stopped', 'a crash is acknowledged by a stop');
});

test('a guest that dies is told as running or as crashed, at no moment as paused', async () => {
  await using lab = await Lab.create();
  await (await lab.running(GUEST, { disks: 1 })).close();
  for (let time = 0; time < 5; time++) {
    const told = new Set<string>();
    const ask = async () => {
      let state: string;
      do {
        ({ state } = await lab.client.getGuest(GUEST));
        told.add(state);
      } while (state !== 'crashed');
    };
    process.kill((await lab.client.getGuest(GUEST)).pid ?? 0, 'SIGKILL');
    await Promise.all(Array.from({ length: 4 }, ask));
    assert.deepEqual([...told.difference(new Set(['running', 'crashed']))], []);
    await lab.client.start(GUEST);
  }
});

test('a console that nobody serves any more is no internal error', async () => {
  await using lab = await Lab.create();
  await (await lab.running(GUEST, { disks: 1 })).close();
  for (const directory of await lab.runDirectories()) await rm(join(directory, SERIAL_SOCKET));
  await assert.rejects(lab.client.openConsole(GUEST), {
    code: 'guest-crashed',
    guest: GUEST,
    message: /^nobody serves the serial console of guest web1 \(.*ENOENT/,
  });
});

test('QEMU is in its sandbox, all of its threads, and can not get out', async () => {
  await using lab = await Lab.create();
  await (await lab.running(GUEST, { disks: 1 })).close();
  const { pid } = await lab.client.getGuest(GUEST);
  for (const thread of await readdir(`/proc/${pid}/task`)) {
    const status = await readFile(`/proc/${pid}/task/${thread}/status`, 'utf8').catch(() => undefined);
    if (status === undefined) continue; // a worker that had nothing to do any more
    assert.match(status, /^NoNewPrivs:\s+1$/m);
    assert.match(status, /^Seccomp:\s+2$/m); // a filter, seccomp(2)
  }
});

test('shutdown presses the power button, and a guest that ignores it runs on', async () => {
  await using lab = await Lab.create();
  await (await lab.running(GUEST, { disks: 1 })).close();
  await lab.client.shutdown(GUEST, { timeoutSeconds: 60 });
  assert.equal((await lab.client.getGuest(GUEST)).state, 'stopped');

  await (await lab.running('deaf', { disks: 1, cmdline: 'noacpi' })).close();
  await assert.rejects(lab.client.shutdown('deaf', { timeoutSeconds: 0.5 }), {
    code: 'timeout',
    guest: 'deaf',
  });
  assert.equal((await lab.client.getGuest('deaf')).state, 'running');

  const [qemu] = await lab.qemuProcesses();
  assert.ok(qemu !== undefined);
  process.kill(qemu, 'SIGSTOP'); // it does not even take the command
  await assert.rejects(lab.client.shutdown('deaf', { timeoutSeconds: 0.1 }), { code: 'timeout' });
  process.kill(qemu, 'SIGCONT');
  assert.equal((await lab.client.getGuest('deaf')).state, 'running');
});

test('a guest that powers itself off has stopped, not crashed', async () => {
  await using lab = await Lab.create();
  const witness = await lab.running(GUEST, { disks: 1 });
  await using ends = await eventsOf(lab, 'stopped');
  await witness.poweroff();
  await ends.next();
  assert.equal((await lab.client.getGuest(GUEST)).state, 'stopped');
});

test('paused, resumed and reset', async () => {
  await using lab = await Lab.create();
  const witness = await lab.running(GUEST, { disks: 1 });
  assert.equal((await lab.client.pause(GUEST)).state, 'paused');
  assert.equal((await lab.client.resume(GUEST)).state, 'running');
  await witness.ping();
  await witness.fill(1, 4);
  await lab.client.reset(GUEST);
  await witness.ready();
  assert.equal((await witness.status()).areaMiB, 0, 'memory is gone');
});

test('several people share one console', async () => {
  await using lab = await Lab.create();
  const first = await lab.running(GUEST, { disks: 1 });
  const second = await lab.witness(GUEST);
  await Promise.all([first.ping(), second.ping()]);
  await first.close();
  await second.ping();
});

/** The next events of an action, from now on. */
async function eventsOf(lab: Lab, action: string): Promise<AsyncDisposable & { next(): Promise<unknown> }> {
  const newest = (await lab.client.listEvents({ limit: 1 })).at(-1)?.id ?? 0;
  const stop = new AbortController();
  const stream = lab.client.events({ since: newest, guest: GUEST }, { signal: stop.signal });
  const events = stream[Symbol.asyncIterator]();
  return {
    async next() {
      for (;;) {
        const { value, done } = await events.next();
        if (done === true) throw new Error(`no event "${action}"`);
        if (value.action === action) return value;
      }
    },
    [Symbol.asyncDispose]: async () => {
      stop.abort();
      await events.return?.();
    },
  };
}
