/**
 * Runs a test file inside the guest with LVM (lvm-guest/, built by scripts/build-lvm-guest): this machine's kernel may
 * have no device mapper. The guest is a Linux kernel as a program (User Mode Linux). It gets the present sources on a disk of
 * its own, empty disks to make volumes of, and hands out what the test says.
 */
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { cp, mkdtemp, open, readFile, rm, statfs, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { promisify } from 'node:util';

const run = promisify(execFile);
const ROOT = join(import.meta.dirname, '../..');
const GUEST = join(ROOT, '.cache/lvm-guest');
const TSC = join(ROOT, 'node_modules/typescript/bin/tsc');
const NEEDED = ['package.json', '.cache/test-guest'];
const PROJECT_MIB = 256;
const SCRATCH_BYTES = 4 * 1024 ** 3;
const MEMORY_MIB = 2048;
const TEST_ARGS = ['--disable-warning=ExperimentalWarning', '--test', '--test-isolation=none'];

/**
 * Each test of the files becomes one of `t`'s. They run in one process, one after the other. The scratch disks are /dev/ubdc,
 * /dev/ubdd and /dev/ubde.
 * @param files such as `test/storage/lvm.inside.ts`
 */
export async function testInLvmGuest(t: TestContext, ...files: readonly string[]): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'stasis-lvm-'));
  try {
    await makeProjectDisk(directory);
    const { output, log } = await boot(
      directory,
      [
        ...settings(),
        'node',
        ...TEST_ARGS,
        '--test-reporter=tap',
        ...files.map((file) => file.replace(/ts$/, 'js')),
      ],
      t.signal,
    );
    const results = [...output.matchAll(/^ *(not )?ok \d+ - (.*)$/gm)];
    for (const [, failed, name = ''] of results) {
      await t.test(name, () => {
        if (failed !== undefined) throw new Error(`${name}: see below`);
      });
    }
    if (results.length === 0 || !/^# status 0$/m.test(output))
      throw new Error(`in the guest:\n${output}\n${log}`);
    for (const [, figure = ''] of output.matchAll(/^ *# (figure: .*)$/gm)) t.diagnostic(figure);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** What is set for campaigns holds inside too. A comma would end a word there. */
function settings(): string[] {
  const names = ['STASIS_FAULTS', 'STASIS_SCENARIO', 'STASIS_SEED', 'STASIS_STEPS'];
  const set = names.flatMap((name) =>
    process.env[name] === undefined ? [] : [`${name}=${process.env[name]}`],
  );
  return ['env', ...set];
}

/**
 * A file system with what a test needs to run: the program and its tests, the packages they use, the test guest. Without their
 * types: to strip those takes an emulated daemon half of its start.
 */
async function makeProjectDisk(directory: string): Promise<void> {
  const staged = join(directory, 'project');
  await run(process.execPath, [TSC, '-p', join(ROOT, 'lvm-guest/tsconfig.json'), '--outDir', staged]);
  for (const path of [...NEEDED, ...(await packages())])
    await cp(join(ROOT, path), join(staged, path), { recursive: true });
  const args = ['-q', '-t', 'ext4', '-O', '^has_journal', '-m', '0', '-d', staged, projectDisk(directory)];
  await run('mke2fs', [...args, `${PROJECT_MIB}M`], {
    env: { ...process.env, PATH: `${process.env['PATH']}:/usr/sbin:/sbin` },
  });
}

const projectDisk = (directory: string) => join(directory, 'project.ext4');

/** Packages that the program needs, and what its tests need; Node.js itself is part of the guest. */
export async function packages(): Promise<string[]> {
  // npm's own file, in its documented format.
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion
  const lock = JSON.parse(await readFile(join(ROOT, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, { dev?: boolean; optional?: boolean }>;
  };
  return Object.entries(lock.packages)
    .filter(([path, { dev, optional }]) => path !== '' && (TEST_PACKAGES.has(path) || (!dev && !optional)))
    .map(([path]) => path)
    .concat(['node_modules/@koromix/koffi-linux-x64']);
}

const TEST_PACKAGES = new Set(['node_modules/fast-check', 'node_modules/pure-rand']);

interface GuestRun {
  /** what the command printed, and its status at the end */
  readonly output: string;
  /** what the kernel said */
  readonly log: string;
}

/** The guest has `directory` mounted, to write its output there. */
async function boot(directory: string, command: readonly string[], signal: AbortSignal): Promise<GuestRun> {
  await checkSharedMemory();
  const scratch = ['c', 'd', 'e'].map((name) => join(directory, `scratch-${name}.raw`));
  for (const path of scratch) {
    await using file = await open(path, 'w');
    await file.truncate(SCRATCH_BYTES);
  }
  const disks = [
    ...[join(GUEST, 'system.ext4'), projectDisk(directory)].map((path) => ({ path, how: 'r' })),
    ...scratch.map((path) => ({ path, how: '' })),
  ];
  const args = [
    `mem=${MEMORY_MIB}M`,
    `initrd=${join(GUEST, 'initrd.gz')}`,
    ...disks.map(({ path, how }, index) => `ubd${index}${how}=${path}`),
    ...['con=null', 'con0=null,fd:1', 'quiet', 'panic=-1', `uml_dir=${join(directory, 'control')}`],
    ...[`out=${directory}`, `run=${command.join(',')}`],
  ];
  const [output, log] = [join(directory, 'output'), join(directory, 'log')];
  await writeFile(output, ''); // should it never come so far
  await using console = await open(log, 'w');
  // What runs inside is processes of this machine. At SIGTERM the kernel ends them all, which SIGKILL would leave; so also when we die.
  const linux = spawn('setpriv', ['--pdeathsig', 'TERM', join(GUEST, 'linux'), ...args], {
    stdio: ['ignore', console.fd, console.fd],
  });
  const ended = once(linux, 'exit');
  const end = (): void => void linux.kill('SIGTERM');
  signal.addEventListener('abort', end, { once: true });
  try {
    await ended;
  } finally {
    signal.removeEventListener('abort', end);
  }
  return { output: await readFile(output, 'utf8'), log: await readFile(log, 'utf8') };
}

/** The kernel keeps its memory there, and is killed when it finds no room. */
async function checkSharedMemory(): Promise<void> {
  const { bavail, bsize } = await statfs('/dev/shm');
  const freeMiB = Math.floor((bavail * bsize) / 1024 ** 2);
  if (freeMiB < MEMORY_MIB)
    throw new Error(`the guest with LVM needs ${MEMORY_MIB} MiB in /dev/shm, which has ${freeMiB} MiB free`);
}
