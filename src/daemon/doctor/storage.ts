/** What the file system of the home can do, and what else disks may be on. */
import { constants, copyFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { access } from 'node:fs/promises';
import { errnoOf } from '../../errors.ts';
import type { Host } from '../../guests/host.ts';
import { supportsDirectIo } from '../../qemu/memory/direct-io.ts';
import { degraded, ok, type Finding } from './check.ts';

export async function directIo({ paths }: Host): Promise<Finding> {
  return inTrialDirectory(paths.data, async (directory) =>
    (await supportsDirectIo(join(directory, 'file'), 'write'))
      ? ok(`proven in ${paths.data}`)
      : degraded(
          `the file system of ${paths.data} refuses it: a stopped save goes through the page cache`,
          'keep the home on ext4, XFS or Btrfs, not on tmpfs or an overlay',
        ),
  );
}

/** @see ioctl_ficlone(2), which is what this kind of copy is */
export async function sharedBlocks({ paths }: Host): Promise<Finding> {
  return inTrialDirectory(paths.data, async (directory) => {
    const [from, to] = [join(directory, 'file'), join(directory, 'copy')];
    await writeFile(from, Buffer.alloc(64 << 10, 1));
    try {
      await copyFile(from, to, constants.COPYFILE_FICLONE_FORCE);
      return ok(`proven: files in ${paths.data} can share blocks`);
    } catch (error) {
      if (!['EOPNOTSUPP', 'ENOTSUP', 'EINVAL', 'ENOTTY', 'ENOSYS', 'EXDEV'].includes(errnoOf(error) ?? ''))
        throw error;
      return ok(
        `files in ${paths.data} can't share blocks; overlays do without`,
        'keep disks on XFS or Btrfs',
      );
    }
  });
}

export async function lvm(): Promise<Finding> {
  const tools = await isInPath('lvm');
  const kernel = listsDeviceMapper(await readFile('/proc/misc', 'utf8'));
  if (tools && kernel) return ok('tools and device mapper are there');
  const missing = [tools ? [] : ['its tools'], kernel ? [] : ['the device mapper in this kernel']].flat();
  return ok(`without ${missing.join(' and ')}`, 'install lvm2, and load dm_mod');
}

/** @param misc `/proc/misc`: a line with number and name for each driver of that kind */
export function listsDeviceMapper(misc: string): boolean {
  return /^\s*\d+ device-mapper$/m.test(misc);
}

async function isInPath(program: string): Promise<boolean> {
  const directories = [...(process.env['PATH'] ?? '').split(delimiter), '/usr/sbin', '/sbin'];
  for (const directory of directories) {
    try {
      await access(join(directory, program), constants.X_OK);
      return true;
    } catch {
      // not here
    }
  }
  return false;
}

async function inTrialDirectory<T>(parent: string, trial: (directory: string) => Promise<T>): Promise<T> {
  const directory = await mkdtemp(join(parent, 'doctor-'));
  try {
    return await trial(directory);
  } finally {
    await rm(directory, { recursive: true });
  }
}
