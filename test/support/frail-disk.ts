/**
 * A disk that fails when it is told to: full, slow, refusing writes or reads, without power. It is a file system in a file that QEMU's
 * storage daemon serves over FUSE, so that every read and write of the file system goes through a node of QEMU's block layer
 * that can be slowed down (`throttle`) or made to fail (`blkdebug`). Mounting it takes root's rights.
 */
import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readdir, readlink, rm, statfs, truncate, writeFile } from 'node:fs/promises';
import { existsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { waitForEnd } from '../../src/qemu/process/process-scan.ts';
import { PlainQmp } from './plain-qmp.ts';

const run = promisify(execFile);
const EIO = 5;
/** The node that has what is on the disk. */
const SOUND = 'sound';
const UNMOUNTED_WITHIN_MS = 10_000;
const SMALLEST_PIECE = 16 * 1024;

const FILE_SYSTEMS = {
  ext4: ['mkfs.ext4', '-q', '-m', '0'], // nothing of it is kept for root
  xfs: ['mkfs.xfs', '-q', '-m', 'reflink=1'],
} as const;
type FileSystem = keyof typeof FILE_SYSTEMS;

/** Why there can't be one here, if so. */
export function noFrailDisk(): string | false {
  if (process.getuid?.() !== 0) return 'only root may mount file systems';
  return existsSync('/dev/fuse') ? false : 'there is no /dev/fuse';
}

export class FrailDisk implements AsyncDisposable {
  /** where it is mounted */
  readonly directory: string;
  readonly #place: string;
  readonly #server: ChildProcess;
  readonly #qmp: PlainQmp;
  /** the node below the served one */
  #below: string = SOUND;

  private constructor(place: string, server: ChildProcess, qmp: PlainQmp) {
    this.#place = place;
    this.directory = join(place, 'disk');
    this.#server = server;
    this.#qmp = qmp;
  }

  static async open(sizeMiB: number, fileSystem: FileSystem): Promise<FrailDisk> {
    const place = await mkdtemp(join(tmpdir(), 'stasis-frail-'));
    await mkdir(join(place, 'disk'));
    await writeFile(join(place, 'blocks'), '');
    await truncate(join(place, 'blocks'), sizeMiB * 1024 ** 2);
    await writeFile(join(place, 'device'), '');
    // Ctrl-C is for whoever uses the disk: it ends when that lets go of it.
    const server = spawn('qemu-storage-daemon', storageDaemon(place), {
      stdio: ['pipe', 'pipe', 'inherit'],
      detached: true,
    });
    const disk = new FrailDisk(place, server, await PlainQmp.over(server.stdout, server.stdin));
    try {
      const [tool, ...args] = FILE_SYSTEMS[fileSystem];
      await run(tool, [...args, join(place, 'device')]);
      await disk.#mount();
    } catch (error) {
      await disk[Symbol.asyncDispose]();
      throw error;
    }
    return disk;
  }

  /** Leaves no more than about so many bytes of space: a file system keeps some for itself. */
  async fill(leftBytes: number): Promise<void> {
    let offset = 0;
    let piece = await this.#freeBytes();
    for (;;) {
      const missing = (await this.#freeBytes()) - leftBytes;
      piece = Math.min(piece, missing);
      if (piece < SMALLEST_PIECE) return;
      const isTaken = await run('fallocate', ['-o', String(offset), '-l', String(piece), this.#ballast]).then(
        () => true,
        () => false,
      );
      if (isTaken) offset += piece;
      else piece = Math.floor(piece / 2);
    }
  }

  async free(): Promise<void> {
    await rm(this.#ballast, { force: true });
  }

  /** Every write fails with EIO from now on, until it is `restarted`. */
  async refuseWrites(): Promise<void> {
    await this.#refuse('write');
  }

  /** Every read fails with EIO from now on, until it is `restarted`, of what the kernel has not kept: as little as can be. */
  async refuseReads(): Promise<void> {
    const files = await readdir(this.directory, { recursive: true, withFileTypes: true });
    const paths = files.filter((file) => file.isFile()).map((file) => join(file.parentPath, file.name));
    // A file may go meanwhile.
    for (const path of paths)
      await run('dd', [`if=${path}`, 'iflag=nocache', 'count=0']).catch(() => undefined);
    await this.#refuse('read');
  }

  /** @param bytesPerSecond 0: as fast as it can */
  async pace(bytesPerSecond: number): Promise<void> {
    const limits = { 'bps-total': bytesPerSecond };
    await this.#qmp.ask('qom-set', { path: '/objects/pace', property: 'limits', value: limits });
  }

  /**
   * What a power cut does: whoever uses it ends, what was not written durably is lost, and it is mounted again, writable, fast, and
   * with space.
   */
  async restart(): Promise<void> {
    await this.refuseWrites();
    await this.#unmount();
    await this.#becomeSound();
    await this.#mount();
    await this.free();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#becomeSound();
    if (await this.#isMounted()) await this.#unmount();
    const ended = once(this.#server, 'exit');
    this.#server.kill();
    await ended;
    await rm(this.#place, { recursive: true, force: true });
  }

  async #freeBytes(): Promise<number> {
    const { bavail, bsize } = await statfs(this.directory);
    return bavail * bsize;
  }

  get #ballast(): string {
    return join(this.directory, 'ballast');
  }

  async #isMounted(): Promise<boolean> {
    const { stdout } = await run('findmnt', ['-n', '-o', 'TARGET', '--mountpoint', this.directory]).catch(
      () => ({ stdout: '' }),
    );
    return stdout.trim() !== '';
  }

  async #mount(): Promise<void> {
    await run('mount', ['-o', 'loop', join(this.#place, 'device'), this.directory]);
  }

  async #becomeSound(): Promise<void> {
    await this.pace(0);
    await this.#putUnder(SOUND);
  }

  async #refuse(iotype: 'read' | 'write'): Promise<void> {
    const node = `refusing-${iotype}s`;
    if (this.#below === node) return;
    await this.#qmp.ask('blockdev-add', {
      driver: 'blkdebug',
      'node-name': node,
      image: SOUND,
      'inject-error': [{ event: 'none', iotype, errno: EIO, once: false }],
    });
    await this.#putUnder(node);
  }

  /** What the served node stands on. */
  async #putUnder(node: string): Promise<void> {
    if (node === this.#below) return;
    await this.#qmp.ask('blockdev-reopen', { options: [{ ...PACED, file: node }] });
    if (this.#below !== SOUND) await this.#qmp.ask('blockdev-del', { 'node-name': this.#below });
    this.#below = node;
  }

  /** Who was being started while its users were looked for is one of them as well. */
  async #unmount(): Promise<void> {
    const until = performance.now() + UNMOUNTED_WITHIN_MS;
    for (;;) {
      await this.#endUsers();
      try {
        await run('umount', [this.directory]);
        return;
      } catch (error) {
        if (performance.now() > until) throw error;
      }
    }
  }

  async #endUsers(): Promise<void> {
    for (const pid of await usersOf(this.directory)) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        continue; // it has ended meanwhile
      }
      await waitForEnd(pid, 10_000);
    }
  }
}

const PACED = { driver: 'throttle', 'node-name': 'paced', 'throttle-group': 'pace' } as const;

function storageDaemon(place: string): string[] {
  const node = (options: Record<string, unknown>) => ['--blockdev', JSON.stringify(options)];
  return [
    ...['--object', 'throttle-group,id=pace'],
    ...node({ driver: 'file', 'node-name': SOUND, filename: join(place, 'blocks'), discard: 'unmap' }),
    ...node({ ...PACED, file: SOUND }),
    ...['--export', `fuse,id=device,node-name=paced,writable=on,mountpoint=${join(place, 'device')}`],
    ...['--chardev', 'stdio,id=qmp', '--monitor', 'chardev=qmp'],
  ];
}

/** Processes that have a file open below a directory, or work in it. */
async function usersOf(directory: string): Promise<number[]> {
  const users: number[] = [];
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    const descriptors = (await readdir(`/proc/${pid}/fd`).catch(() => [])).map((fd) => `fd/${fd}`);
    const links = await Promise.all(
      ['cwd', ...descriptors].map((link) => readlink(`/proc/${pid}/${link}`).catch(() => '')),
    );
    const isOther = Number(pid) !== process.pid;
    if (isOther && links.some((target) => target === directory || target.startsWith(`${directory}/`)))
      users.push(Number(pid));
  }
  return users;
}
