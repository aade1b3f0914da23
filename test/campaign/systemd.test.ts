/**
 * A real systemd: Stasis is installed on a Debian with `stasis host install`, and a guest runs in it while units are restarted, the
 * host is rebooted and loses its power. Its counter tells whether it went on: in memory, and on its disk.
 *
 * Minutes long, on a busy machine more than ten: `STASIS_SYSTEMD=1 node --test test/campaign/systemd.test.ts`.
 */
import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import type { Outcome } from '../../src/api/schemas.ts';
import type { Report } from '../../src/systemd/install.ts';
import { SystemdHost } from '../support/systemd-host.ts';

const ASKED_FOR = process.env['STASIS_SYSTEMD'] === '1';
const TIMEOUT_MS = 3_600_000;

test(
  'guests outlive the daemon, and come back after a reboot of the host where they were',
  { timeout: TIMEOUT_MS, skip: ASKED_FOR ? false : 'a campaign: STASIS_SYSTEMD=1' },
  async (t) => {
    await using host = await SystemdHost.boot();
    await t.test('installed, the daemon is there when it is asked', () => installed(host));
    await t.test('a restart of its units is nothing to a guest', () => restarted(host));
    await t.test('nor is a daemon that hangs, and is replaced by the watchdog', () => hung(host));
    await t.test('after a reboot it goes on where it was', (inner) => rebooted(inner, host));
    await t.test('also when no daemon ran when the host shut down', () => rebootedWithoutDaemon(host));
    await t.test('a loss of power is told as a crash', () => lostPower(host));
    await t.test('without its units the guest still runs', () => uninstalled(host));
  },
);

async function installed(host: SystemdHost): Promise<void> {
  await host.keepJournal();
  for (const change of ['written', 'unchanged']) {
    const { files } = await host.stasis<Report>('host', 'install', '--budget', '2m');
    assert.deepEqual(
      files.map((file) => file.change),
      [change, change, change],
    );
  }
  await host.systemctl('stop', 'stasis.service');
  assert.deepEqual(await host.stasis('guests'), []);
  const { pid } = await host.settled();
  assert.equal(await host.systemctl('show', '--property=MainPID', '--value', 'stasis.service'), `${pid}`);
}

async function restarted(host: SystemdHost): Promise<void> {
  await host.startTicker();
  await ticksOnIn(host, () => host.systemctl('restart', 'stasis.service', 'stasis-guests.service'));
  await ticksOnIn(host, async () => {
    const { files } = await host.stasis<Report>('host', 'install', '--budget', '3m');
    assert.deepEqual(
      files.map(({ change }) => change),
      ['unchanged', 'written', 'written'],
    );
  });
  assert.deepEqual(await host.stasis('images', 'ticker'), []);
}

async function hung(host: SystemdHost): Promise<void> {
  await ticksOnIn(host, () => host.hangDaemon());
}

async function ticksOnIn(host: SystemdHost, meanwhile: () => Promise<unknown>): Promise<void> {
  const [before, pid] = [await host.ticks(), await host.tickerPid()];
  await meanwhile();
  assert.equal(await host.tickerPid(), pid, 'the same QEMU');
  assert.ok((await host.ticks()) > before);
}

async function rebooted(t: TestContext, host: SystemdHost): Promise<void> {
  const before = await host.ticks();
  await host.reboot();
  const { boot, shutdown } = await host.settled();
  const after = await host.ticks();
  t.diagnostic(`${before} before the reboot, ${after} after it`);
  assert.ok(after > before);
  assert.equal(boot.after, 'clean');
  assert.deepEqual(summary(shutdown?.guests), ['ticker done']);
  assert.deepEqual(summary(boot.guests), ['ticker done']);
  assert.match(await host.journalOfLastBoot('stasis.service'), /the host shuts down/, 'logind announced it');
}

async function rebootedWithoutDaemon(host: SystemdHost): Promise<void> {
  const before = await host.ticks();
  await host.systemctl('stop', 'stasis.service'); // its socket is still there, and nobody behind it
  await host.reboot();
  const { boot } = await host.settled();
  assert.ok((await host.ticks()) > before);
  assert.equal(boot.after, 'clean');
  assert.match(await host.journalOfLastBoot('stasis-guests.service'), /guests have ended for the shutdown/);
}

async function lostPower(host: SystemdHost): Promise<void> {
  const before = await host.ticks();
  await host.cutPower();
  const { boot } = await host.settled();
  assert.deepEqual([boot.after, boot.ran], ['crash', ['ticker']]);
  assert.ok((await host.ticks()) < before, 'there was no image: it was booted from its disk');
}

async function uninstalled(host: SystemdHost): Promise<void> {
  const pid = await host.tickerPid();
  await host.stasis('host', 'uninstall');
  assert.match(await host.run('/bin/cat', `/proc/${pid}/cmdline`), /qemu-system-x86_64/);
}

function summary(outcomes: readonly Outcome[] = []): string[] {
  return outcomes.map(({ name, outcome }) => `${name} ${outcome}`);
}
