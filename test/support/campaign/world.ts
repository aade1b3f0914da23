/** The host that a history takes place on: a daemon, its guest, and a disk below its home that can fail. */
import { randomUUID } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { FrailDisk, noFrailDisk } from '../frail-disk.ts';
import type { GroundKind } from '../grounds.ts';
import { Lab } from '../lab.ts';
import type { Random } from '../random.ts';

const HOME_MIB = 512;

export class World implements AsyncDisposable {
  readonly lab: Lab;
  /** what its home is on; none where file systems can't be mounted */
  readonly disk: FrailDisk | undefined;
  readonly #directory: string;

  private constructor(lab: Lab, disk: FrailDisk | undefined, directory: string) {
    this.lab = lab;
    this.disk = disk;
    this.#directory = directory;
  }

  /** @param ground of the guest's disks; they are in the home without one */
  static async open(ground: GroundKind | undefined, random: Random): Promise<World> {
    await using undo = new AsyncDisposableStack();
    const directory = await mkdtemp(join(tmpdir(), 'stasis-world-'));
    undo.defer(() => rm(directory, { recursive: true, force: true }));
    const fileSystem = random.of(['ext4', 'xfs'] as const);
    const disk = noFrailDisk() === false ? undo.use(await FrailDisk.open(HOME_MIB, fileSystem)) : undefined;
    await boot(directory);
    const home = disk?.directory ?? directory;
    const lab = await (ground === undefined
      ? Lab.create(home, environmentOf(directory))
      : Lab.on(ground, environmentOf(directory), home));
    undo.move();
    return new World(lab, disk, directory);
  }

  /** Sees to it that a daemon serves. */
  async serve(): Promise<void> {
    if (this.lab.hasNoDaemon) await this.lab.startDaemon(environmentOf(this.#directory));
  }

  /** Everything ends at once, and what was not written durably is lost, where the disk can do that. The host boots again. */
  async losePower(): Promise<void> {
    if (this.disk !== undefined) await this.disk.refuseWrites();
    await this.lab.endDaemon('SIGKILL');
    await killAll(await this.lab.qemuProcesses());
    await this.disk?.restart();
    await this.lab.failAt();
    await boot(this.#directory);
    await this.serve();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await using _disk = this.disk;
    await this.lab[Symbol.asyncDispose]();
    await rm(this.#directory, { recursive: true, force: true });
  }
}

function environmentOf(directory: string): NodeJS.ProcessEnv {
  return { STASIS_BOOT_ID_FILE: join(directory, 'boot_id') };
}

async function boot(directory: string): Promise<void> {
  await writeFile(join(directory, 'boot_id'), `${randomUUID()}\n`);
}

/** Signals processes; those that have ended meanwhile are no matter. */
export async function killAll(
  pids: readonly number[],
  signal: NodeJS.Signals = 'SIGKILL',
): Promise<readonly number[]> {
  const reached = pids.filter((pid) => {
    try {
      return process.kill(pid, signal);
    } catch {
      return false;
    }
  });
  await delay(0);
  return reached;
}
