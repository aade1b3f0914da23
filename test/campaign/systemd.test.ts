/**
 * A real systemd: Stasis is installed on a Debian with `stasis host install`, and a guest runs in it while units are restarted, the
 * host is rebooted and loses its power. Its counter tells whether it went on: in memory, and on its disk. The same of a user's own.
 *
 * Minutes long, on a busy machine more than ten: `STASIS_SYSTEMD=1 node --test test/campaign/systemd.test.ts`.
 */
import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import type { Outcome } from '../../src/api/schemas.ts';
import type { Report } from '../../src/systemd/install.ts';
import { InstalledStasis } from '../support/installed-stasis.ts';
import { SystemdHost } from '../support/systemd-host.ts';

const OPTIONS = {
  timeout: 3_600_000,
  skip: process.env['STASIS_SYSTEMD'] === '1' ? false : 'a campaign: STASIS_SYSTEMD=1',
};

test(
  'guests outlive the daemon, and come back after a reboot of the host where they were',
  OPTIONS,
  async (t) => {
    await using host = await SystemdHost.boot();
    const installed = InstalledStasis.ofSystem(host);
    await t.test('installed, the daemon is there when it is asked', () => install(installed, []));
    await t.test('a restart of its units is nothing to a guest', () => restart(installed));
    await t.test('nor is a daemon that hangs, and is replaced by the watchdog', () => hang(installed));
    await t.test('after a reboot it goes on where it was', async (inner) => {
      await reboot(inner, installed);
      assert.match(
        await installed.journalOfLastBoot('stasis.service'),
        /the host shuts down/,
        'logind announced it',
      );
    });
    await t.test('also when no daemon ran when the host shut down', () => rebootWithoutDaemon(installed));
    await t.test('a loss of power is told as a crash', () => losePower(installed));
    await t.test('without its units the guest still runs', () => uninstall(installed));
  },
);

test("a user's own daemon does the same by the user's systemd, with nobody logged in", OPTIONS, async (t) => {
  await using host = await SystemdHost.boot();
  const installed = await InstalledStasis.ofUser(host);
  await t.test('installed, the daemon is there when it is asked', async () => {
    await assert.rejects(installed.stasis('host', 'install', '--user'), /no systemd of yours runs here/);
    await installed.enableLinger();
    await install(installed, ['--user']);
  });
  await t.test('a restart of its units is nothing to a guest', () => restart(installed, '--user'));
  await t.test("a guest is saved when the user's systemd ends, and brought back when asked for", () =>
    restartManager(installed),
  );
  await t.test('after a reboot it goes on where it was', (inner) => reboot(inner, installed));
  await t.test('also when no daemon ran when the host shut down', () => rebootWithoutDaemon(installed));
  await t.test('without its units the guest still runs', () => uninstall(installed, '--user'));
});

async function install(installed: InstalledStasis, scope: readonly string[]): Promise<void> {
  await installed.host.keepJournal();
  for (const change of ['written', 'unchanged']) {
    const { files } = await installed.stasis<Report>('host', 'install', ...scope, '--budget', '2m');
    assert.deepEqual(
      files.map((file) => file.change),
      [change, change, change],
    );
  }
  await installed.systemctl('stop', 'stasis.service');
  assert.deepEqual(await installed.stasis('guests'), []);
  const { pid } = await installed.settled();
  assert.equal(
    await installed.systemctl('show', '--property=MainPID', '--value', 'stasis.service'),
    `${pid}`,
  );
}

async function restart(installed: InstalledStasis, ...scope: readonly string[]): Promise<void> {
  await installed.startTicker();
  await ticksOnIn(installed, () => installed.systemctl('restart', 'stasis.service', 'stasis-guests.service'));
  await ticksOnIn(installed, async () => {
    const { files } = await installed.stasis<Report>('host', 'install', ...scope, '--budget', '3m');
    const changes = files.map(({ path, change }) => `${path.slice(path.lastIndexOf('/') + 1)} ${change}`);
    // Only the system's daemon is told by logind, and has a budget of its own.
    const daemon = scope.length === 0 ? 'written' : 'unchanged';
    assert.deepEqual(changes, [
      'stasis.socket unchanged',
      `stasis.service ${daemon}`,
      'stasis-guests.service written',
    ]);
  });
  assert.deepEqual(await installed.stasis('images', 'ticker'), []);
}

async function hang(installed: InstalledStasis): Promise<void> {
  await ticksOnIn(installed, () => installed.hangDaemon());
}

async function ticksOnIn(installed: InstalledStasis, meanwhile: () => Promise<unknown>): Promise<void> {
  const [before, pid] = [await installed.ticks(), await installed.tickerPid()];
  await meanwhile();
  assert.equal(await installed.tickerPid(), pid, 'the same QEMU');
  assert.ok((await installed.ticks()) > before);
}

async function restartManager(installed: InstalledStasis): Promise<void> {
  const before = await installed.ticks();
  await installed.restartManager();
  const { shutdown } = await installed.settled();
  assert.deepEqual(summary(shutdown?.guests), ['ticker done']);
  assert.equal(await installed.tickerPid(), null, 'it is no boot of the host');
  await installed.stasis('host', 'restore-all');
  assert.ok((await installed.ticks()) > before);
}

async function reboot(t: TestContext, installed: InstalledStasis): Promise<void> {
  const before = await installed.ticks();
  await installed.host.reboot();
  const { boot, shutdown } = await installed.settled();
  const after = await installed.ticks();
  t.diagnostic(`${before} before the reboot, ${after} after it`);
  assert.ok(after > before);
  assert.equal(boot.after, 'clean');
  assert.deepEqual(summary(shutdown?.guests), ['ticker done']);
  assert.deepEqual(summary(boot.guests), ['ticker done']);
}

async function rebootWithoutDaemon(installed: InstalledStasis): Promise<void> {
  const before = await installed.ticks();
  await installed.systemctl('stop', 'stasis.service'); // its socket is still there, and nobody behind it
  await installed.host.reboot();
  const { boot } = await installed.settled();
  assert.ok((await installed.ticks()) > before);
  assert.equal(boot.after, 'clean');
  const said = await installed.journalOfLastBoot('stasis-guests.service');
  assert.match(said, /guests have ended for the shutdown/);
}

async function losePower(installed: InstalledStasis): Promise<void> {
  const before = await installed.ticks();
  await installed.host.cutPower();
  const { boot } = await installed.settled();
  assert.deepEqual([boot.after, boot.ran], ['crash', ['ticker']]);
  assert.ok((await installed.ticks()) < before, 'there was no image: it was booted from its disk');
}

async function uninstall(installed: InstalledStasis, ...scope: readonly string[]): Promise<void> {
  const pid = await installed.tickerPid();
  await installed.stasis('host', 'uninstall', ...scope);
  assert.match(await installed.run('/bin/cat', `/proc/${pid}/cmdline`), /qemu-system-x86_64/);
}

function summary(outcomes: readonly Outcome[] = []): string[] {
  return outcomes.map(({ name, outcome }) => `${name} ${outcome}`);
}
