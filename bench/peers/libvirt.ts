/**
 * libvirt, used as its manual says, by its own command line. Its daemon is one of our own: it runs in the foreground
 * as an ordinary user, with every directory of its own, and is ended with its guest.
 *
 * Run by root, both become `nobody`: libvirt's daemon would otherwise be the system's, with the system's directories.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { chown, copyFile, mkdir, mkdtemp, open, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { waitForEnd } from '../../src/qemu/process/process-scan.ts';
import { testBoot } from '../../test/support/lab.ts';
import type { Witness } from '../../test/support/witness.ts';
import { connectWitness, run, timed, type LiveSave, type Peer, type StoppedSave } from './peer.ts';

const DOMAIN = 'bench';
const DISKS = ['vda', 'vdb'] as const;
const NOBODY = 65_534;
const START_TIMEOUT_MS = 10_000;
/** Debian and Ubuntu have one daemon for all of libvirt; others may have the one for QEMU alone. */
const DAEMONS = ['/usr/sbin/virtqemud', '/usr/sbin/libvirtd'] as const;

interface Pause {
  readonly stopMs: number;
  readonly resumeMs: number;
}

export class Libvirt implements Peer {
  readonly name = 'libvirt';
  readonly #directory: string;
  readonly #memoryMiB: number;
  #daemon: ChildProcess | undefined;
  #events: ChildProcess | undefined;
  readonly #pauses: Pause[] = [];
  #stoppedAtMs = 0;
  #made = 0;

  private constructor(directory: string, memoryMiB: number) {
    this.#directory = directory;
    this.#memoryMiB = memoryMiB;
  }

  /** @returns why libvirt can't be measured here, if it can't */
  static async whyNot(): Promise<string | undefined> {
    if ((await findDaemon()) === undefined)
      return `none of ${DAEMONS.join(', ')} is installed: bench/README.md has the command`;
    return run('virsh', ['--version']).then(
      () => undefined,
      () => 'virsh is not installed: bench/README.md has the command',
    );
  }

  static async version(): Promise<string> {
    return (await run('virsh', ['--version'])).stdout.trim();
  }

  static async create(memoryMiB: number): Promise<Libvirt> {
    const libvirt = new Libvirt(await mkdtemp(join(tmpdir(), 'stasis-libvirt-')), memoryMiB);
    await libvirt.#startDaemon();
    return libvirt;
  }

  async boot(): Promise<void> {
    const { kernel, initrd } = testBoot();
    await copyFile(kernel, this.#path('vmlinuz'));
    await copyFile(initrd, this.#path('initrd.gz'));
    for (const disk of DISKS) {
      const file = this.#path(`${disk}.qcow2`);
      await run('qemu-img', ['create', '-q', '-f', 'qcow2', file, '64M']);
      await this.#handOver(file);
    }
    await writeFile(this.#path('domain.xml'), this.#domainXml());
    await this.#virsh('define', this.#path('domain.xml'));
    await this.#virsh('start', DOMAIN);
    this.#followEvents();
  }

  async pid(): Promise<number> {
    return Number(await readFile(this.#path(`run/libvirt/qemu/run/${DOMAIN}.pid`), 'utf8'));
  }

  witness(): Promise<Witness> {
    return connectWitness(this.#path('serial.sock'));
  }

  /** `snapshot-create-as --live` with memory: the counterpart of a live save image. */
  async saveLive(signal: AbortSignal): Promise<LiveSave> {
    const file = this.#path('memory');
    const disks = DISKS.flatMap((disk) => [
      '--diskspec',
      `${disk},snapshot=external,file=${this.#overlay(disk)}`,
    ]);
    const memory = ['--memspec', `file=${file},snapshot=external`];
    this.#pauses.length = 0;
    const abort = (): void => void this.#virsh('domjobabort', DOMAIN).catch(() => undefined);
    signal.addEventListener('abort', abort);
    try {
      const { ms } = await timed(() =>
        this.#virsh('snapshot-create-as', DOMAIN, 'live', '--live', ...memory, ...disks),
      );
      return { saveMs: ms, pauseMs: await this.#pauseMs(), storedBytes: await storedBytes(file) };
    } catch (error) {
      if (signal.aborted) await rm(file, { force: true });
      signal.throwIfAborted();
      throw error;
    } finally {
      signal.removeEventListener('abort', abort);
    }
  }

  /** An internal snapshot, in the disks themselves: the guest stands still for all of it. @returns milliseconds */
  async saveInternal(): Promise<number> {
    this.#pauses.length = 0;
    await this.#virsh('snapshot-create-as', DOMAIN, 'internal');
    const pauseMs = await this.#pauseMs();
    await this.#virsh('snapshot-delete', DOMAIN, 'internal');
    return pauseMs;
  }

  async restoreLive(): Promise<void> {
    await this.#virsh('snapshot-revert', DOMAIN, 'live');
  }

  async dropLive(): Promise<void> {
    const heads = await this.#heads();
    await this.#virsh('snapshot-delete', DOMAIN, 'live', '--metadata');
    for (const disk of DISKS) await this.#virsh('blockcommit', DOMAIN, disk, '--active', '--pivot');
    for (const file of [...heads, ...DISKS.map((disk) => this.#overlay(disk)), this.#path('memory')])
      await rm(file, { force: true });
    this.#made += 1;
  }

  async saveAndStop(): Promise<StoppedSave> {
    const file = this.#path('saved');
    const { ms } = await timed(() => this.#virsh('save', DOMAIN, file));
    return { saveMs: ms, storedBytes: await storedBytes(file) };
  }

  async startAgain(): Promise<void> {
    await this.#virsh('restore', this.#path('saved'));
    await rm(this.#path('saved'));
  }

  /** The image that libvirt keeps for a domain, and its start from it. @returns milliseconds of both */
  async managedSaveAndStart(): Promise<{ saveMs: number; startMs: number }> {
    const save = await timed(() => this.#virsh('managedsave', DOMAIN));
    const start = await timed(() => this.#virsh('start', DOMAIN));
    return { saveMs: save.ms, startMs: start.ms };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#events?.kill('SIGKILL');
    try {
      const pid = await this.pid().catch(() => undefined);
      if (pid !== undefined) {
        process.kill(pid, 'SIGKILL');
        await waitForEnd(pid, 10_000);
      }
      await this.#endDaemon();
    } finally {
      await rm(this.#directory, { recursive: true, force: true, maxRetries: 5 });
    }
  }

  #path(name: string): string {
    return join(this.#directory, name);
  }

  #overlay(disk: string): string {
    return this.#path(`${disk}-${this.#made}.qcow2`);
  }

  async #startDaemon(): Promise<void> {
    await this.#handOver(this.#directory);
    for (const directory of ['run', 'config', 'config/libvirt', 'cache', 'data', 'state']) {
      await mkdir(this.#path(directory));
      await this.#handOver(this.#path(directory));
    }
    await writeFile(this.#path('daemon.conf'), '');
    // QEMU's output goes to a plain file; no further daemon has to keep it.
    await writeFile(this.#path('config/libvirt/qemu.conf'), 'stdio_handler = "file"\n');
    await using log = await open(this.#path('daemon.log'), 'w');
    const daemon = spawn((await findDaemon()) ?? '', ['-f', this.#path('daemon.conf')], {
      ...this.#identity(),
      stdio: ['ignore', log.fd, log.fd],
    });
    await once(daemon, 'spawn');
    this.#daemon = daemon;
    const giveUp = performance.now() + START_TIMEOUT_MS;
    // It announces by nothing that it serves.
    while (!(await this.#serves())) {
      if (daemon.exitCode !== null || performance.now() > giveUp)
        throw new Error(`libvirt's daemon does not serve:\n${await this.#log()}`);
      await delay(50);
    }
  }

  async #endDaemon(): Promise<void> {
    const daemon = this.#daemon;
    if (daemon === undefined || daemon.exitCode !== null || daemon.signalCode !== null) return;
    const exited = once(daemon, 'exit');
    daemon.kill('SIGTERM');
    await exited;
  }

  #serves(): Promise<boolean> {
    return this.#virsh('version').then(
      () => true,
      () => false,
    );
  }

  /** @throws Error with what virsh said, and with the daemon's end when it has crashed */
  async #virsh(...args: readonly string[]): Promise<string> {
    try {
      return (await run('virsh', ['-q', '-c', 'qemu:///session', ...args], this.#identity())).stdout;
    } catch (error) {
      const { exitCode, signalCode } = this.#daemon ?? {};
      if (signalCode === null && exitCode === null) throw error;
      throw new Error(
        `libvirt's daemon has crashed (${signalCode ?? exitCode}) at virsh ${args.join(' ')}:\n${await this.#log()}`,
        {
          cause: error,
        },
      );
    }
  }

  async #log(): Promise<string> {
    return (await readFile(this.#path('daemon.log'), 'utf8')).split('\n').slice(-10).join('\n');
  }

  /** Whose process it is, and where it keeps everything. */
  #identity(): { uid?: number; gid?: number; env: NodeJS.ProcessEnv } {
    const env = {
      PATH: process.env['PATH'],
      HOME: this.#directory,
      XDG_RUNTIME_DIR: this.#path('run'),
      XDG_CONFIG_HOME: this.#path('config'),
      XDG_CACHE_HOME: this.#path('cache'),
      XDG_DATA_HOME: this.#path('data'),
      XDG_STATE_HOME: this.#path('state'),
      LIBVIRT_AUTOSTART: '0',
    };
    return isRoot() ? { uid: NOBODY, gid: NOBODY, env } : { env };
  }

  async #handOver(file: string): Promise<void> {
    if (isRoot()) await chown(file, NOBODY, NOBODY);
  }

  /** QEMU's own events with its own times, as libvirt hands them on. */
  #followEvents(): void {
    const args = ['-c', 'qemu:///session', 'qemu-monitor-event', '--domain', DOMAIN, '--loop', '--timestamp'];
    this.#events = spawn('virsh', args, { ...this.#identity(), stdio: ['ignore', 'pipe', 'inherit'] });
    if (this.#events.stdout === null) throw new Error('no pipe');
    createInterface({ input: this.#events.stdout }).on('line', (line) => {
      // 2026-11-24 14:07:39.011+0000: event STOP for domain 'bench': <null>
      const [, day, time, event] = /^(\S+) (\S+)\+0000: event (STOP|RESUME) /.exec(line) ?? [];
      const atMs = Date.parse(`${day}T${time}Z`);
      if (event === 'STOP') this.#stoppedAtMs = atMs;
      if (event === 'RESUME') this.#pauses.push({ stopMs: this.#stoppedAtMs, resumeMs: atMs });
    });
  }

  /** The one pause there has been; its events come by another way than the end of the command. */
  async #pauseMs(): Promise<number> {
    const giveUp = performance.now() + 5_000;
    while (this.#pauses.length === 0) {
      if (performance.now() > giveUp) throw new Error('libvirt told of no pause');
      await delay(10);
    }
    const [{ stopMs, resumeMs } = { stopMs: Number.NaN, resumeMs: Number.NaN }] = this.#pauses;
    return resumeMs - stopMs;
  }

  /** The files that the guest writes to. */
  async #heads(): Promise<string[]> {
    const listed = await this.#virsh('domblklist', DOMAIN);
    return [...listed.matchAll(/^\s*vd[ab]\s+(\S.*)$/gm)].map(([, file = '']) => file.trim());
  }

  #domainXml(): string {
    const disks = DISKS.map(
      (disk) =>
        `<disk type='file'><driver name='qemu' type='qcow2'/><source file='${this.#path(`${disk}.qcow2`)}'/>` +
        `<target dev='${disk}' bus='virtio'/></disk>`,
    );
    return `<domain type='qemu'>
  <name>${DOMAIN}</name>
  <memory unit='MiB'>${this.#memoryMiB}</memory>
  <vcpu>1</vcpu>
  <os>
    <type machine='q35'>hvm</type>
    <kernel>${this.#path('vmlinuz')}</kernel>
    <initrd>${this.#path('initrd.gz')}</initrd>
    <cmdline>${testBoot().cmdline}</cmdline>
  </os>
  <features><acpi/></features>
  <cpu mode='maximum'/>
  <devices>
    ${disks.join('\n    ')}
    <serial type='unix'><source mode='bind' path='${this.#path('serial.sock')}'/></serial>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
  </devices>
</domain>
`;
  }
}

function isRoot(): boolean {
  return process.geteuid?.() === 0;
}

async function findDaemon(): Promise<string | undefined> {
  for (const path of DAEMONS) {
    const there = await stat(path).then(
      () => true,
      () => false,
    );
    if (there) return path;
  }
  return undefined;
}

async function storedBytes(file: string): Promise<number> {
  return (await stat(file)).blocks * 512;
}
