import { execFile } from 'node:child_process';
import { access, constants, realpath, stat } from 'node:fs/promises';
import { delimiter, dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { messageOf, StasisError } from '../../errors.ts';
import type { QemuVersion } from '../qmp/commands.ts';

const EMULATOR = 'qemu-system-x86_64';
const IMAGE_TOOL = 'qemu-img';

/** 9.0 brought `mapped-ram`, the file format that everything here rests on. */
const MINIMUM = { major: 9, minor: 0 } as const;

const WHERE_TO_GET_IT =
  'Debian 12: `apt install -t bookworm-backports qemu-system-x86 qemu-utils`; Debian 13, Ubuntu 25.04, Fedora 41 and later ' +
  'have it. Or set STASIS_QEMU to the path of another qemu-system-x86_64.';

/** One installed QEMU. */
export interface QemuBinary {
  /** The emulator, symbolic links resolved. */
  readonly path: string;
  /** Its `qemu-img`: the one beside it, else the first in PATH. */
  readonly imageToolPath: string;
  readonly version: QemuVersion;
  /** The version as the distribution tells it: `10.0.2 (Debian 1:10.0.2+ds-2+deb13u1~bpo12+1)`. */
  readonly versionText: string;
  /** Together with the path tells one build from the next, for what is remembered about it. */
  readonly modifiedMs: number;
  /** What becomes it (process/user.ts): for questions to be answered as its guests will be. */
  readonly startedBy: readonly string[];
}

/** Its `qemu-nbd`, which comes with `qemu-img`. */
export function diskServerOf({ imageToolPath }: QemuBinary): string {
  return join(dirname(imageToolPath), 'qemu-nbd');
}

/**
 * Finds QEMU: `STASIS_QEMU` when it is set, else in PATH.
 * @throws StasisError `qemu-missing`, `qemu-too-old` (before 9.0); both say where to get one
 */
export async function findQemu(env: NodeJS.ProcessEnv = process.env): Promise<QemuBinary> {
  const wanted = env['STASIS_QEMU'];
  const found =
    wanted === undefined || wanted === '' ? await findInPath(EMULATOR, env) : await executable(wanted);
  if (found === undefined) {
    throw new StasisError('qemu-missing', `${wanted ?? EMULATOR} was not found. ${WHERE_TO_GET_IT}`);
  }
  const binary = await describeQemu(found, env);
  refuseTooOld(binary);
  return binary;
}

/** @throws StasisError `qemu-too-old` (before 9.0) */
export function refuseTooOld({ path, version, versionText }: QemuBinary): void {
  if (!isBelow(version, MINIMUM)) return;
  throw new StasisError(
    'qemu-too-old',
    `QEMU ${versionText} is too old: Stasis needs ${MINIMUM.major}.${MINIMUM.minor} or later. ${WHERE_TO_GET_IT}`,
    { details: { path, version: versionText, minimum: `${MINIMUM.major}.${MINIMUM.minor}` } },
  );
}

/**
 * A QEMU of any version, by its path.
 * @throws StasisError `qemu-missing` when it is none, or can't be executed
 */
export async function describeQemu(found: string, env: NodeJS.ProcessEnv = process.env): Promise<QemuBinary> {
  if ((await executable(found)) === undefined)
    throw new StasisError('qemu-missing', `${found} is not there, or can't be executed`);
  const imageTool = (await executable(join(dirname(found), IMAGE_TOOL))) ?? (await findTool(IMAGE_TOOL, env));
  const path = await realpath(found);
  const [output, { mtimeMs }] = await Promise.all([versionOutput(path), stat(path)]);
  const { version, versionText } = parseQemuVersion(output);
  return { path, imageToolPath: imageTool, version, versionText, modifiedMs: mtimeMs, startedBy: [] };
}

/**
 * The version in what `qemu-system-… --version` prints: `QEMU emulator version 10.0.2 (Debian …)`.
 * @throws StasisError `qemu-missing` when it is no QEMU
 */
export function parseQemuVersion(output: string): { version: QemuVersion; versionText: string } {
  const match = /version ((\d+)\.(\d+)\.(\d+).*)/.exec(output);
  if (match?.[1] === undefined)
    throw new StasisError('qemu-missing', `not a QEMU: it says "${output.slice(0, 80)}"`);
  const version = { major: Number(match[2]), minor: Number(match[3]), micro: Number(match[4]) };
  return { version, versionText: match[1].trim() };
}

async function versionOutput(path: string): Promise<string> {
  try {
    return (await promisify(execFile)(path, ['--version'], { timeout: 10_000 })).stdout;
  } catch (error) {
    throw new StasisError('qemu-missing', `cannot execute ${path}: ${messageOf(error)}`, { cause: error });
  }
}

/** The first executable of that name in PATH. */
export async function findInPath(name: string, env: NodeJS.ProcessEnv): Promise<string | undefined> {
  for (const directory of (env['PATH'] ?? '').split(delimiter)) {
    const path = directory === '' ? undefined : await executable(join(directory, name));
    if (path !== undefined) return path;
  }
  return undefined;
}

/**
 * A tool that comes with QEMU: the one beside the emulator that `STASIS_QEMU` names, else the first in PATH.
 * @throws StasisError `qemu-missing`
 */
export async function findTool(name: string, env: NodeJS.ProcessEnv = process.env): Promise<string> {
  const wanted = env['STASIS_QEMU'];
  const beside =
    wanted === undefined || wanted === '' ? undefined : await executable(join(dirname(wanted), name));
  const found = beside ?? (await findInPath(name, env));
  if (found !== undefined) return found;
  throw new StasisError('qemu-missing', `${name} was not found (package qemu-utils). ${WHERE_TO_GET_IT}`);
}

async function executable(path: string): Promise<string | undefined> {
  try {
    await access(path, constants.X_OK);
    return path;
  } catch {
    return undefined; // missing or not ours to run: not this one, for whatever reason
  }
}

function isBelow(version: QemuVersion, minimum: { readonly major: number; readonly minor: number }): boolean {
  return version.major < minimum.major || (version.major === minimum.major && version.minor < minimum.minor);
}
