/** The host that a history takes place on: a daemon, its guest, and a disk below its home that can fail. */
import { randomUUID } from 'node:crypto';
import { globSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { killAll } from '../kill-all.ts';
import { FrailDisk, noFrailDisk } from '../frail-disk.ts';
import type { GroundKind } from '../grounds.ts';
import { Lab } from '../lab.ts';
import type { Random } from '../random.ts';

const HOME_MIB = 512;
/** libfaketime, which shows a process and its children another clock; Debian: libfaketime. */
const [FAKE_TIME] = globSync('/usr/lib/*/faketime/libfaketimeMT.so.1');

export class World implements AsyncDisposable {
  readonly lab: Lab;
  /** what its home is on; none where file systems can't be mounted */
  readonly disk: FrailDisk | undefined;
  readonly #directory: string;
  readonly #environment: NodeJS.ProcessEnv;

  private constructor(
    lab: Lab,
    disk: FrailDisk | undefined,
    directory: string,
    environment: NodeJS.ProcessEnv,
  ) {
    this.lab = lab;
    this.disk = disk;
    this.#directory = directory;
    this.#environment = environment;
  }

  /**
   * @param options.ground of the guest's disks; they are in the home without one
   * @param options.hasOwnClock whether its clock can jump, where libfaketime is
   */
  static async open(
    { ground, hasOwnClock }: { readonly ground: GroundKind | undefined; readonly hasOwnClock: boolean },
    random: Random,
  ): Promise<World> {
    await using undo = new AsyncDisposableStack();
    const directory = await mkdtemp(join(tmpdir(), 'stasis-world-'));
    undo.defer(() => rm(directory, { recursive: true, force: true }));
    const fileSystem = random.of(['ext4', 'xfs'] as const);
    const disk = noFrailDisk() === false ? undo.use(await FrailDisk.open(HOME_MIB, fileSystem)) : undefined;
    await boot(directory);
    const environment = {
      STASIS_BOOT_ID_FILE: join(directory, 'boot_id'),
      ...(hasOwnClock && FAKE_TIME !== undefined ? await ownClock(FAKE_TIME, directory) : {}),
    };
    const home = disk?.directory ?? directory;
    const lab = await (ground === undefined
      ? Lab.create(home, environment)
      : Lab.on(ground, environment, home));
    undo.move();
    return new World(lab, disk, directory, environment);
  }

  get hasOwnClock(): boolean {
    return this.#environment['LD_PRELOAD'] !== undefined;
  }

  /** The clock of the daemon, and of all that it has started, is so far off from now on. */
  async setClock(offByHours: number): Promise<void> {
    await writeFile(clockFile(this.#directory), offset(offByHours));
  }

  /** Sees to it that a daemon serves. */
  async serve(): Promise<void> {
    if (this.lab.hasNoDaemon) await this.lab.startDaemon(this.#environment);
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
    await using _ = this.disk;
    await this.lab[Symbol.asyncDispose]();
    await rm(this.#directory, { recursive: true, force: true });
  }
}

const clockFile = (directory: string) => join(directory, 'clock');

/** As libfaketime reads it. */
function offset(hours: number): string {
  return `${hours < 0 ? '-' : '+'}${Math.abs(hours)}h`;
}

async function ownClock(library: string, directory: string): Promise<NodeJS.ProcessEnv> {
  await writeFile(clockFile(directory), offset(0));
  return {
    LD_PRELOAD: library,
    FAKETIME_TIMESTAMP_FILE: clockFile(directory),
    FAKETIME_NO_CACHE: '1',
    FAKETIME_DONT_FAKE_MONOTONIC: '1',
    NO_FAKE_STAT: '1',
  };
}

async function boot(directory: string): Promise<void> {
  await writeFile(join(directory, 'boot_id'), `${randomUUID()}\n`);
}
