/**
 * A home of its own with a real daemon and real guests, for one test. Whatever the test does, disposing leaves no
 * process and no file.
 */
import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, open, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { extname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { StasisClient } from '../../src/client/index.ts';
import { sessionPaths, type Paths } from '../../src/paths.ts';
import { GUEST_FILE } from '../../src/recovery/record-files.ts';
import { findDiskServer } from '../../src/qemu/block/disk-server.ts';
import { findQemuProcesses } from '../../src/qemu/process/process-scan.ts';
import type { Ground, GroundKind, TestDisk } from './grounds.ts';
import { killAll } from './kill-all.ts';
import { Witness } from './witness.ts';

const ROOT = join(import.meta.dirname, '../..');
const MAIN = join(ROOT, `src/main${extname(import.meta.filename)}`);
/** The test command and the benches run the program as it is built; a test that is run by itself runs the sources. */
const NODE_ARGS = [
  '--disable-warning=ExperimentalWarning',
  '--max-semi-space-size=4',
  process.env['STASIS_TEST_PROGRAM'] ?? MAIN,
];
const run = promisify(execFile);
const DISK_MIB = 64;
const QEMU_USER = process.env['STASIS_TEST_QEMU_USER'];

/** Without these a kernel spends half of its start on things that no test is about. */
export const QUICK_BOOT = [
  'mitigations=off',
  'cryptomgr.notests',
  'nokaslr',
  'initcall_blacklist=init_kprobe_trace,crypto_kdf108_init',
  'no_timer_check', // on a busy host ticks come too late for that check, and the kernel panics
] as const;

/** How a definition boots the test guest. @param cmdline for the witness: see test-guest/witness.c */
export function testBoot(cmdline = ''): { kernel: string; initrd: string; cmdline: string } {
  const initrd = cmdline.split(' ').includes('agent') ? 'initrd-agent.gz' : 'initrd.gz';
  return {
    kernel: join(ROOT, '.cache/test-guest/vmlinuz'),
    initrd: join(ROOT, '.cache/test-guest', initrd),
    cmdline: `console=ttyS0 quiet ${QUICK_BOOT.join(' ')} ${cmdline}`,
  };
}

/** How a definition boots the guest without an operating system (bare-guest/). */
const BARE_BOOT = { kernel: join(ROOT, '.cache/test-guest/bare') };

export interface LabGuest {
  readonly system?: 'linux' | 'bare';
  readonly disks?: number;
  readonly memory?: string;
  readonly cmdline?: string;
  readonly format?: 'qcow2' | 'raw';
  readonly extra?: Record<string, unknown>;
}

export interface CommandResult {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

export class Lab implements AsyncDisposable {
  readonly home: string;
  readonly paths: Paths;
  readonly client: StasisClient;
  #daemon: ChildProcess | undefined;
  readonly #user: number | undefined;
  readonly #failpoints: string;
  readonly #witnesses = new Set<Witness>();
  readonly #adopted = new Set<number>();
  #ground: Ground | undefined;

  private constructor(home: string, user?: number) {
    this.home = home;
    this.#user = user;
    this.#failpoints = join(home, 'failpoints');
    this.paths = sessionPaths({ STASIS_HOME: home });
    this.client = new StasisClient({ connect: `unix:${this.paths.socket}` });
  }

  /** @param parent where the home is made; the system's directory for temporary files unless a test needs another */
  static async create(parent: string = tmpdir(), environment: NodeJS.ProcessEnv = {}): Promise<Lab> {
    return Lab.open(await mkdtemp(join(parent, 'stasis-')), environment);
  }

  /** A lab whose disks are of that kind. @param parent where its home is made */
  static async on(
    kind: GroundKind,
    environment: NodeJS.ProcessEnv = {},
    parent: string = tmpdir(),
  ): Promise<Lab> {
    const ground = await kind.open();
    try {
      const lab = await Lab.create(parent, environment);
      lab.#ground = ground;
      return lab;
    } catch (error) {
      await ground[Symbol.asyncDispose]();
      throw error;
    }
  }

  /**
   * A lab on a home that somebody prepared; it is removed with the lab.
   * @param user whom the daemon runs as, by number; only root can choose
   * @param before is done to the home while no daemon is there
   */
  static async open(
    home: string,
    environment: NodeJS.ProcessEnv = {},
    user?: number,
    before: (lab: Lab) => Promise<void> = () => Promise.resolve(),
  ): Promise<Lab> {
    const lab = new Lab(home, user);
    if (user === undefined) await lab.#chooseQemuUser();
    await lab.failAt();
    await before(lab);
    await lab.startDaemon(environment);
    return lab;
  }

  /** Any test can be run with a QEMU that has no rights: CONTRIBUTING.md. One that has settings of its own says that itself. */
  async #chooseQemuUser(): Promise<void> {
    const settings = join(this.paths.config, 'stasis.yaml');
    if (QEMU_USER === undefined || existsSync(settings)) return;
    await mkdir(this.paths.config, { recursive: true });
    await writeFile(settings, `qemu: {user: ${QEMU_USER}}\n`);
  }

  /** The daemon and all after it meet these failpoints from now on. @param points such as `save/capture:before=kill` */
  async failAt(...points: readonly string[]): Promise<void> {
    await writeFile(this.#failpoints, points.join(','));
  }

  /** Starts a daemon and waits until it serves. @param environment such as `STASIS_FAILPOINT` */
  async startDaemon(environment: NodeJS.ProcessEnv = {}): Promise<void> {
    await using log = await open(`${this.home}/daemon.log`, 'a');
    const daemon = spawn(process.execPath, [...NODE_ARGS, 'daemon'], {
      stdio: ['ignore', log.fd, log.fd, 'pipe'],
      env: {
        ...process.env,
        STASIS_HOME: this.home,
        STASIS_READY_FD: '3',
        STASIS_FAILPOINT_FILE: this.#failpoints,
        ...environment,
      },
      ...(this.#user === undefined ? {} : { uid: this.#user, gid: this.#user }),
    });
    this.#daemon = daemon;
    const ready = daemon.stdio[3];
    if (!ready) throw new Error('no pipe');
    const first = await Promise.race([once(ready, 'data'), once(daemon, 'exit')]);
    if (!String(first[0]).startsWith('ready'))
      throw new Error(`the daemon did not start:\n${await this.log()}`);
    ready.destroy();
  }

  get daemonPid(): number {
    return this.#daemon?.pid ?? 0;
  }

  /** Has the daemon ended, or was there none? */
  get hasNoDaemon(): boolean {
    const daemon = this.#daemon;
    return daemon === undefined || daemon.exitCode !== null || daemon.signalCode !== null;
  }

  /** Ends the daemon by a signal and waits until it is gone. */
  async endDaemon(signal: 'SIGTERM' | 'SIGKILL' = 'SIGKILL'): Promise<void> {
    const daemon = this.#daemon;
    if (daemon === undefined || this.hasNoDaemon) return;
    const exited = once(daemon, 'exit');
    daemon.kill(signal);
    await exited;
  }

  /** Resolves when the daemon has ended by itself: a failpoint was reached. */
  async daemonEnded(): Promise<void> {
    const daemon = this.#daemon;
    if (daemon !== undefined && !this.hasNoDaemon) await once(daemon, 'exit');
  }

  /** Resolves when the daemon stands still at a failpoint. Nothing announces that, so its state is looked at. */
  async daemonHalted(): Promise<void> {
    while (!/^State:\tT/m.test(await readFile(`/proc/${this.daemonPid}/status`, 'utf8'))) await delay(5);
  }

  async log(): Promise<string> {
    return readFile(`${this.home}/daemon.log`, 'utf8');
  }

  /** Runs `stasis` as a whole process. */
  async cli(
    args: readonly string[],
    options: { input?: string; environment?: NodeJS.ProcessEnv } = {},
  ): Promise<CommandResult> {
    const child = run(process.execPath, [...NODE_ARGS, ...args], {
      env: { ...process.env, STASIS_HOME: this.home, NO_COLOR: '1', ...options.environment },
      maxBuffer: 64 * 1024 ** 2,
    });
    child.child.stdin?.end(options.input ?? '');
    try {
      return { status: 0, ...(await child) };
    } catch (error) {
      if (!(error instanceof Error && 'code' in error && 'stdout' in error && 'stderr' in error)) throw error;
      return { status: Number(error.code), stdout: String(error.stdout), stderr: String(error.stderr) };
    }
  }

  /** What the lab's ground has of Stasis's that is no file. */
  async layersOnGround(): Promise<readonly string[]> {
    return (await this.#ground?.layers?.()) ?? [];
  }

  /** Makes disks of 64 MiB, on the lab's ground, and defines the test guest on them. */
  async define(name: string, guest: LabGuest = {}): Promise<void> {
    const { disks = 2, format = 'qcow2' } = guest;
    const files = [];
    for (let index = 0; index < disks; index += 1)
      files.push({ name: `disk${index}`, ...(await this.makeDisk(`${name}-${index}`, DISK_MIB, format)) });
    await this.defineOn(name, files, guest);
  }

  /** A guest's disks as they were given to it. */
  async disksOf(guest: string): Promise<(TestDisk & { readonly name: string })[]> {
    const { disks } = await this.client.getGuest(guest);
    return disks.map(({ name, path, format }) => ({
      name,
      path,
      format: format === 'raw' ? 'raw' : 'qcow2',
    }));
  }

  /** Defines the test guest on disks that are there. */
  async defineOn(
    name: string,
    disks: readonly (TestDisk & { readonly name: string })[],
    {
      system = 'linux',
      memory = system === 'bare' ? '16MiB' : '128MiB',
      cmdline = '',
      extra = {},
    }: LabGuest = {},
  ): Promise<void> {
    const boot = system === 'bare' ? BARE_BOOT : testBoot(cmdline);
    await this.client.defineGuest({ name, memory, accelerator: 'tcg', boot, disks, ...extra });
  }

  /** An empty disk on the lab's ground, or a file in its home. */
  async makeDisk(name: string, sizeMiB: number, format: TestDisk['format'] = 'qcow2'): Promise<TestDisk> {
    if (this.#ground !== undefined) return this.#ground.makeDisk(name, sizeMiB);
    const path = join(this.home, `${name}.${format}`);
    await run('qemu-img', ['create', '-q', '-f', format, path, `${sizeMiB}M`]);
    return { path, format, driver: 'overlay' };
  }

  /** Defines and starts a guest, and waits until it answers. */
  async running(name: string, guest: LabGuest = {}): Promise<Witness> {
    await this.define(name, guest);
    await this.client.start(name);
    return this.witness(name);
  }

  /** The serial console of a guest that runs, once it answers. */
  async witness(name: string, timeoutMs = 60_000): Promise<Witness> {
    const witness = new Witness(await this.client.openConsole(name));
    this.#witnesses.add(witness);
    await witness.ping(timeoutMs);
    return witness;
  }

  /** Resolves when what stands beside layers and images says what the catalog says. */
  async recordsWritten(): Promise<void> {
    while ((await this.client.hostStatus()).unwrittenRecords > 0) await delay(5);
  }

  /** Every file under the home that is a layer or an image's. */
  async files(): Promise<string[]> {
    const guests = join(this.paths.data, 'guests');
    if (!existsSync(guests)) return []; // made with the first layer or image
    const entries = await readdir(guests, { recursive: true, withFileTypes: true });
    return entries
      .filter((entry) => entry.isFile() && !entry.name.startsWith(GUEST_FILE))
      .map((entry) => join(entry.parentPath, entry.name))
      .toSorted();
  }

  /** A directory for each QEMU process of this home. */
  async runDirectories(): Promise<string[]> {
    const directory = join(this.paths.run, 'guests');
    return (await readdir(directory).catch(() => [])).map((name) => join(directory, name));
  }

  /** Pids of all QEMU processes of this home. */
  async qemuProcesses(): Promise<number[]> {
    return (await Promise.all((await this.runDirectories()).map(findQemuProcesses))).flat();
  }

  /** Pids of all processes that serve disks of this home's images. */
  async diskServers(): Promise<number[]> {
    const directory = join(this.paths.run, 'readers');
    const names = await readdir(directory).catch(() => []);
    const found = await Promise.all(names.map((name) => findDiskServer(join(directory, name))));
    return found.filter((pid) => pid !== undefined);
  }

  /** Resolves when nobody serves a disk any more: a server ends by itself when its last client has gone. */
  async nobodyServes(): Promise<void> {
    while ((await this.diskServers()).length > 0) await delay(20);
  }

  /** A daemon that a command started is this lab's to end. */
  adoptDaemon(pid: number): void {
    this.#adopted.add(pid);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await using _ = this.#ground;
    for (const witness of this.#witnesses) await witness.close();
    await this.endDaemon('SIGKILL');
    await killAll([...this.#adopted]);
    await killAll([...(await this.qemuProcesses()), ...(await this.diskServers())]);
    await rm(this.home, { recursive: true, force: true, maxRetries: 5 });
  }
}
