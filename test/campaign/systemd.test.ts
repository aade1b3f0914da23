/**
 * A real systemd: Stasis is installed on a Debian with `stasis host install`, and a guest runs in it while units are restarted, the
 * host is rebooted and loses its power. Its counter tells whether it went on: in memory, and on its disk.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SystemdHost } from '../support/systemd-host.ts';

test(
  'guests outlive the daemon, and come back after a reboot of the host where they were',
  { timeout: 1_800_000 },
  async (t) => {
    await using host = await SystemdHost.boot();

    await t.test('installed, the daemon is there when it is asked', async () => {
      const installed = await host.stasis<{ files: { change: string }[] }>(
        'host',
        'install',
        '--budget',
        '2m',
      );
      assert.deepEqual(
        installed.files.map(({ change }) => change),
        ['written', 'written', 'written'],
      );
      const again = await host.stasis<{ files: { change: string }[] }>('host', 'install', '--budget', '2m');
      assert.deepEqual(
        again.files.map(({ change }) => change),
        ['unchanged', 'unchanged', 'unchanged'],
      );
      await host.systemctl('stop', 'stasis.service');
      assert.deepEqual(await host.stasis('guests'), []);
      const { pid } = await host.settled();
      assert.equal(
        await host.systemctl('show', '--property=MainPID', '--value', 'stasis.service'),
        String(pid),
      );
    });

    await t.test('a restart of its units is nothing to a guest', async () => {
      await host.startTicker();
      const [before, pid] = [await host.ticks(), await host.tickerPid()];
      await host.systemctl('restart', 'stasis.service', 'stasis-guests.service');
      assert.equal(await host.tickerPid(), pid, 'the same QEMU');
      assert.ok((await host.ticks()) > before);
      assert.deepEqual(await host.stasis('images', 'ticker'), []);
    });

    await t.test('after a reboot it goes on where it was', async () => {
      const before = await host.ticks();
      await host.reboot();
      const { boot, shutdown } = await host.settled();
      assert.equal(boot.after, 'clean');
      assert.deepEqual(
        shutdown?.guests.map(({ name, outcome }) => [name, outcome]),
        [['ticker', 'done']],
      );
      assert.deepEqual(
        boot.guests.map(({ name, outcome }) => [name, outcome]),
        [['ticker', 'done']],
      );
      assert.ok((await host.ticks()) > before);
    });

    await t.test('also when no daemon ran when the host shut down', async () => {
      const before = await host.ticks();
      await host.systemctl('stop', 'stasis.service', 'stasis.socket');
      await host.reboot();
      const { boot } = await host.settled();
      assert.equal(boot.after, 'clean');
      assert.ok((await host.ticks()) > before);
    });

    await t.test('a loss of power is told as a crash', async () => {
      const before = await host.ticks();
      await host.cutPower();
      const { boot } = await host.settled();
      assert.deepEqual([boot.after, boot.ran], ['crash', ['ticker']]);
      assert.ok((await host.ticks()) < before, 'there was no image: it was booted');
    });

    await t.test('without its units the guest still runs', async () => {
      const pid = await host.tickerPid();
      await host.stasis('host', 'uninstall');
      assert.match(
        await host.run('/bin/cat', `/proc/${pid}/cmdline`),
        /^qemu-system-x86_64|\/qemu-system-x86_64/,
      );
    });
  },
);
