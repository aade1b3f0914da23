/**
 * What a lab's disks are made of: each kind is one storage driver on one kind of storage. Those that need root's rights
 * or tools that aren't here say so. Disposing of a ground unmounts and detaches what it made.
 */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { chmod, mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { DriverName } from '../../src/api/constants.ts';

const run = promisify(execFile);

export interface TestDisk {
  readonly path: string;
  readonly format: 'qcow2' | 'raw';
  /** when it is not to be detected */
  readonly driver?: DriverName;
  /** of a plain logical volume */
  readonly snapshotSize?: string;
}

export interface Ground extends AsyncDisposable {
  /** a new, empty disk */
  makeDisk(name: string, sizeMiB: number): Promise<TestDisk>;
  /** all that Stasis has on it now, where that is no file */
  layers?(): Promise<readonly string[]>;
}

export interface GroundKind {
  readonly name: string;
  readonly driver: DriverName;
  /** of every second disk, when it is another */
  readonly second?: DriverName;
  /** why it can't be had here */
  readonly skip: string | false;
  /** what a live save must be allowed there */
  readonly maxPauseMs?: number;
  open(): Promise<Ground>;
}

/** One that also a QEMU with a user of its own gets through. */
async function openDirectory(): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'stasis-ground-'));
  await chmod(directory, 0o711);
  return directory;
}

/** Files in a directory of their own, on whatever file system temporary files are. */
function files(
  format: TestDisk['format'],
  mount?: (directory: string) => Promise<void>,
  second?: DriverName,
): GroundKind['open'] {
  return async () => {
    const directory = await openDirectory();
    const disks = join(directory, 'disks');
    await mkdir(disks);
    const dispose = async () => {
      if (mount !== undefined) await run('umount', [disks]);
      await rm(directory, { recursive: true, force: true });
    };
    try {
      await mount?.(directory);
    } catch (error) {
      await rm(directory, { recursive: true, force: true });
      throw error;
    }
    let made = 0;
    return {
      async makeDisk(name, sizeMiB) {
        made += 1;
        const path = join(disks, `${name}.${format}`);
        await run('qemu-img', ['create', '-q', '-f', format, path, `${sizeMiB}M`]);
        // Where temporary files are may be able to do more.
        const driver = mount === undefined ? 'overlay' : made % 2 === 0 ? second : undefined;
        return { path, format, ...(driver === undefined ? {} : { driver }) };
      },
      [Symbol.asyncDispose]: dispose,
    };
  };
}

/** The kernel lets go of the loop device when it is unmounted. */
const mounted = (make: readonly [string, ...string[]]) => async (directory: string) => {
  const image = join(directory, 'file-system');
  await run('truncate', ['-s', '1G', image]);
  const [tool, ...args] = make;
  await run(tool, [...args, image]);
  await run('mount', ['-o', 'loop', image, join(directory, 'disks')]);
};

async function blockDevices(): Promise<Ground> {
  const directory = await openDirectory();
  const devices: string[] = [];
  return {
    async makeDisk(name, sizeMiB) {
      const image = join(directory, name);
      await run('truncate', ['-s', `${sizeMiB}M`, image]);
      const { stdout } = await run('losetup', ['--find', '--show', image]);
      devices.push(stdout.trim());
      return { path: stdout.trim(), format: 'raw' };
    },
    async [Symbol.asyncDispose]() {
      for (const device of devices) await run('losetup', ['--detach', device]);
      await rm(directory, { recursive: true, force: true });
    },
  };
}

export function needs(...tools: readonly string[]): string | false {
  if (process.getuid?.() !== 0) return 'only root may mount file systems and make block devices';
  const missing = tools.find(
    (tool) => !['/usr/sbin', '/sbin', '/usr/bin', '/bin'].some((place) => existsSync(join(place, tool))),
  );
  return missing === undefined ? false : `${missing} is not installed`;
}

const EXT4 = ['mkfs.ext4', '-q'] as const;
const XFS = ['mkfs.xfs', '-q', '-m', 'reflink=1'] as const;
const BTRFS = ['mkfs.btrfs', '-q'] as const;

/** No ground for guests: a file system that can't share blocks. */
export const NO_REFLINKS: GroundKind = {
  name: 'raw files on ext4',
  driver: 'overlay',
  skip: needs('mkfs.ext4'),
  open: files('raw', mounted(EXT4)),
};

/** The first is what labs have when they ask for nothing. */
export const GROUNDS: readonly [GroundKind, ...GroundKind[]] = [
  { name: 'overlays over qcow2', driver: 'overlay', skip: false, open: files('qcow2') },
  { name: 'overlays over raw files', driver: 'overlay', skip: false, open: files('raw') },
  { name: 'overlays over block devices', driver: 'overlay', skip: needs('losetup'), open: blockDevices },
  {
    name: 'reflinks of qcow2 on XFS',
    driver: 'reflink',
    skip: needs('mkfs.xfs'),
    open: files('qcow2', mounted(XFS)),
  },
  {
    name: 'reflinks of raw files on XFS',
    driver: 'reflink',
    skip: needs('mkfs.xfs'),
    open: files('raw', mounted(XFS)),
  },
  {
    name: 'reflinks of raw files on Btrfs',
    driver: 'reflink',
    skip: needs('mkfs.btrfs'),
    open: files('raw', mounted(BTRFS)),
  },
  {
    name: 'reflinks beside overlays',
    driver: 'reflink',
    second: 'overlay',
    skip: needs('mkfs.xfs'),
    open: files('qcow2', mounted(XFS), 'overlay'),
  },
];

/** Kinds by their names, separated by commas. @throws Error when there is none of that name */
export function kindsNamed(names: string): readonly GroundKind[] {
  return names.split(',').map((name) => {
    const kind = GROUNDS.find((candidate) => candidate.name === name.trim());
    if (kind === undefined)
      throw new Error(`no ground "${name}": ${GROUNDS.map((each) => each.name).join(', ')}`);
    return kind;
  });
}
