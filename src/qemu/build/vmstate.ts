/**
 * Whether a build of QEMU can load a device's saved state. What is in an image says the description at the end of its stream:
 * each device, its format's name and version, and the subsections that were sent. What a build can load says
 * `-dump-vmstate`: the formats of all devices for a machine type, with the versions from the least to the newest. The rules
 * are those of QEMU's loader (migration/vmstate.c: the version within these bounds, each subsection known).
 *
 * The dump has only devices: what belongs to the machine itself (cpu, timer, …) is in none, and is left to the machine type. Whether
 * anything else that isn't in it was a device, the dump of the build that saved it tells.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { StasisError } from '../../errors.ts';
import { ENDING_WITH_US } from '../../ending-with-us.ts';
import type { DeviceState } from '../memory/memory-file.ts';
import { waitFor } from '../wait.ts';
import type { QemuBinary } from './binary.ts';
import { askedOnce } from './probe.ts';

/** What a build can load under one name: two kinds of devices may share it. */
interface Format {
  readonly version: number;
  readonly leastVersion: number;
  readonly subsections: ReadonlySet<string>;
}

export type Formats = ReadonlyMap<string, readonly Format[]>;

/** It takes a quarter of a second. */
const PATIENCE_MS = 30_000;

/**
 * What a build can load into a machine type. Asked once for each.
 * @throws StasisError `qemu-failed` when it doesn't say, `timeout`
 */
export const loadableFormats = askedOnce(dump);

async function dump({ path, versionText }: QemuBinary, machine: string): Promise<Formats> {
  const directory = await mkdtemp(join(tmpdir(), 'stasis-vmstate-'));
  const [starter, ...ending] = ENDING_WITH_US;
  const file = join(directory, 'dump.json');
  const args = [
    '-machine',
    machine,
    '-accel',
    'tcg',
    '-display',
    'none',
    '-nodefaults',
    '-dump-vmstate',
    file,
  ];
  const child = spawn(starter, [...ending, path, ...args], { stdio: 'ignore' });
  const ended = once(child, 'exit');
  try {
    const [status] = await waitFor('the formats of devices', ended, { timeoutMs: PATIENCE_MS });
    if (status !== 0)
      throw new StasisError(
        'qemu-failed',
        `QEMU ${versionText} does not tell what it can load into ${machine}`,
      );
    return parseFormats(await readFile(file, 'utf8'));
  } finally {
    if (child.kill('SIGKILL')) await ended;
    await rm(directory, { recursive: true });
  }
}

/** @param json what `-dump-vmstate` writes: descriptions within descriptions */
export function parseFormats(json: string): Formats {
  const formats = new Map<string, Format[]>();
  collect(JSON.parse(json), formats);
  return formats;
}

function collect(part: unknown, formats: Map<string, Format[]>): void {
  if (typeof part !== 'object' || part === null) return;
  if ('name' in part && 'version_id' in part && typeof part.name === 'string') {
    const { name } = part;
    formats.set(name, [...(formats.get(name) ?? []), formatOf(part)]);
  }
  for (const inner of Object.values(part)) collect(inner, formats);
}

function formatOf(part: object): Format {
  const number = (value: unknown, otherwise: number) => (typeof value === 'number' ? value : otherwise);
  const version = number('version_id' in part ? part.version_id : undefined, 0);
  const subsections: unknown[] =
    'Subsections' in part && Array.isArray(part.Subsections) ? part.Subsections : [];
  return {
    version,
    leastVersion: number('minimum_version_id' in part ? part.minimum_version_id : undefined, version),
    subsections: new Set(
      subsections.flatMap((one) =>
        typeof one === 'object' && one !== null && 'name' in one && typeof one.name === 'string'
          ? [one.name]
          : [],
      ),
    ),
  };
}

/**
 * Why the state of devices can't be loaded: one line for each that can't.
 * @param target what the build can load
 * @param origin what the build can load that saved it, if that is known: a format which is in that dump and not in the target's is
 *   a device's that the target has not got
 */
export function loadProblems(
  devices: readonly DeviceState[],
  target: Formats,
  origin: Formats | undefined,
): string[] {
  return devices.flatMap((device) => {
    const formats = target.get(device.format);
    if (formats === undefined)
      return origin?.has(device.format) === true ? [`it does not know the state of ${nameOf(device)}`] : [];
    const problems = formats.map((format) => problemOf(device, format));
    return problems.includes(undefined)
      ? []
      : problems.slice(0, 1).filter((problem) => problem !== undefined);
  });
}

/** Written by what is no device: these are in no build's dump (read from images of QEMU 10.0 and 11.1). */
const NO_DEVICES = new Set([
  ...['timer', 'cpu', 'cpu_common', 'apic', 'globalstate', 'acpi_build', 'PCIBUS', 'i2c_bus'],
  ...['slirp', 'tpm-emulator', 'audio', 'eeprom'],
]);

/** Of which nothing can be said unless it is known what the build that saved them could load. */
export function untold(devices: readonly DeviceState[], target: Formats): string[] {
  return devices.filter(({ format }) => !target.has(format) && !NO_DEVICES.has(format)).map(nameOf);
}

function problemOf(device: DeviceState, format: Format): string | undefined {
  const { version, leastVersion, subsections } = format;
  if (device.version > version)
    return `${nameOf(device)} was saved in version ${device.version}, and it loads up to ${version}`;
  if (device.version < leastVersion)
    return `${nameOf(device)} was saved in version ${device.version}, and it loads from ${leastVersion} on`;
  const unknown = device.subsections.find((name) => !subsections.has(name));
  return unknown === undefined
    ? undefined
    : `${nameOf(device)} was saved with "${unknown}", which it does not know`;
}

function nameOf({ name, format }: DeviceState): string {
  return name === format ? name : `${format} (${name})`;
}
