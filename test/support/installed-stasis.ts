/**
 * Stasis on a real host, as root's service or a user's own. In it runs a guest of one sector, the ticker (test-guest/ticker.S): its
 * counter tells whether it went on, in memory and on its disk.
 */
import assert from 'node:assert/strict';
import { setTimeout as delay } from 'node:timers/promises';
import type { HostStatus } from '../../src/api/schemas.ts';
import { fromStored } from '../../src/stored.ts';
import { PROGRAM, TICKER, type SystemdHost } from './systemd-host.ts';

/** Nothing announces in a host what its units do. */
const POLL_MS = 500;
const USER = 'alice';
const USER_ID = '1000';

interface Whose {
  /** what every command of theirs begins with */
  readonly prefix: readonly string[];
  /** of systemctl */
  readonly scope: readonly string[];
  /** of what a unit said, in the journal */
  readonly unitField: string;
  readonly directory: string;
}

const ROOTS: Whose = { prefix: [], scope: [], unitField: '_SYSTEMD_UNIT', directory: '/var/lib' };

const USERS: Whose = {
  prefix: [
    ...['/usr/sbin/runuser', '-u', USER, '--'],
    ...['/usr/bin/env', `HOME=/home/${USER}`, `XDG_RUNTIME_DIR=/run/user/${USER_ID}`],
  ],
  scope: ['--user'],
  unitField: '_SYSTEMD_USER_UNIT',
  directory: `/home/${USER}`,
};

export class InstalledStasis {
  readonly host: SystemdHost;
  readonly #whose: Whose;

  private constructor(host: SystemdHost, whose: Whose) {
    this.host = host;
    this.#whose = whose;
  }

  static ofSystem(host: SystemdHost): InstalledStasis {
    return new InstalledStasis(host, ROOTS);
  }

  /** Of a user who is made for it and never logs in. */
  static async ofUser(host: SystemdHost): Promise<InstalledStasis> {
    await host.run('/usr/sbin/useradd', '--create-home', '--uid', USER_ID, USER);
    return new InstalledStasis(host, USERS);
  }

  /** The user's systemd runs from now on and from boot on, without a login. */
  async enableLinger(): Promise<void> {
    await this.host.run('/usr/bin/loginctl', 'enable-linger', USER);
    await this.host.run('/usr/bin/systemctl', 'start', `user@${USER_ID}.service`);
  }

  /** The user's systemd is stopped and started while the host stays up. */
  async restartManager(): Promise<void> {
    await this.host.run('/usr/bin/systemctl', 'restart', `user@${USER_ID}.service`);
  }

  /** Runs a program as them to its end. @returns what it printed @throws Error when it fails */
  async run(path: string, ...args: readonly string[]): Promise<string> {
    const [program = path, ...words] = [...this.#whose.prefix, path, ...args];
    return this.host.run(program, ...words);
  }

  async systemctl(...args: readonly string[]): Promise<string> {
    return (await this.run('/usr/bin/systemctl', ...this.#whose.scope, ...args)).trim();
  }

  /** @returns the one document that the command prints */
  async stasis<T = unknown>(...args: readonly string[]): Promise<T> {
    return fromStored<T>(await this.run(PROGRAM, ...args, '--json'));
  }

  async journalOfLastBoot(unit: string): Promise<string> {
    const match = `${this.#whose.unitField}=${unit}`;
    return this.host.run('/usr/bin/journalctl', '--boot=-1', '--output=cat', match);
  }

  /** Stops the daemon's process in the middle of what it does, and waits until the watchdog has had it replaced. */
  async hangDaemon(): Promise<void> {
    const directory = '/run/systemd/system/stasis.service.d';
    const setting = `mkdir -p ${directory} && printf '[Service]\\nWatchdogSec=30\\n' > ${directory}/test.conf`;
    await this.run('/bin/sh', '-c', setting);
    await this.systemctl('daemon-reload');
    await this.systemctl('restart', 'stasis.service');
    await this.systemctl('kill', '--kill-whom=main', '--signal=STOP', 'stasis.service');
    const show = ['show', '--property=NRestarts', '--value', 'stasis.service'];
    while (Number(await this.systemctl(...show)) < 1) await delay(POLL_MS);
  }

  /** Resolves once the host's policies for its boot have been carried out. */
  async settled(): Promise<HostStatus> {
    for (;;) {
      const status = await this.stasis<HostStatus>('host', 'status');
      if (status.boot.settledAt !== null) return status;
      await delay(POLL_MS);
    }
  }

  /** The ticker, defined and started. */
  async startTicker(): Promise<void> {
    const [disk, definition] = ['ticker.raw', 'ticker.json'].map(
      (name) => `${this.#whose.directory}/${name}`,
    );
    assert.ok(disk !== undefined && definition !== undefined);
    const guest = {
      ...{ name: 'ticker', memory: '32MiB', accelerator: 'tcg' },
      disks: [{ name: 'disk', path: disk, format: 'raw' }],
      policy: { onBoot: 'restore', onShutdown: 'save' },
    };
    await this.run('/bin/cp', TICKER, disk);
    await this.run('/bin/sh', '-c', `printf '%s' '${JSON.stringify(guest)}' > ${definition}`);
    await this.stasis('define', definition);
    await this.stasis('start', 'ticker');
  }

  /** What it counts just now; it has found on its disk what it had in memory all the time. */
  async ticks(): Promise<number> {
    const command = `timeout 60 ${PROGRAM} console ticker </dev/null | head -n 3`;
    const said = await this.run('/bin/sh', '-c', command);
    const [, number = '', mark] = /\n([0-9a-f]{8})(.)\n/.exec(said) ?? [];
    assert.equal(mark, ' ', `memory and disk of the ticker say the same: ${said}`);
    return parseInt(number, 16);
  }

  async tickerPid(): Promise<number | null> {
    return (await this.stasis<{ pid: number | null }>('show', 'ticker')).pid;
  }
}
