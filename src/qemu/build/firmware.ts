/**
 * UEFI firmware as the distribution installs it: which file is the code, which the template of its variables, and what
 * machine the two are for, say its descriptors (QEMU's docs/interop/firmware.json). They are searched as libvirt
 * does: by file name, and a file of the user's or the administrator's replaces, or when it is empty hides, the
 * distribution's of the same name.
 */
import { readdir, readFile, stat } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import Type, { type Static } from 'typebox';
import Value from 'typebox/value';
import { errnoOf, StasisError } from '../../errors.ts';

const Flash = Type.Object({ filename: Type.String(), format: Type.Enum(['raw', 'qcow2']) });

/** Only the members that are read. */
const Descriptor = Type.Object({
  description: Type.String(),
  'interface-types': Type.Array(Type.String()),
  mapping: Type.Object({
    device: Type.Literal('flash'),
    mode: Type.Optional(Type.Literal('split')),
    executable: Flash,
    'nvram-template': Flash,
  }),
  targets: Type.Array(Type.Object({ architecture: Type.String(), machines: Type.Array(Type.String()) })),
  features: Type.Array(Type.String()),
});
type Descriptor = Static<typeof Descriptor>;

export interface FlashFile {
  readonly path: string;
  readonly format: 'raw' | 'qcow2';
}

export interface UefiFirmware {
  readonly type: 'uefi';
  readonly secureBoot: boolean;
  /** it keeps its variables from the system by system management mode */
  readonly smm: boolean;
  readonly code: FlashFile;
  /** what a new guest's variables are copied from */
  readonly template: FlashFile;
}

/**
 * The first firmware, in the order of the descriptors' names, that fits.
 * @param wanted.secureBoot with it: one that enforces Secure Boot, its keys enrolled if there is such a one. Without: one that doesn't
 * @throws StasisError `unsupported` when none is installed
 */
export async function findFirmware(wanted: {
  readonly machine: string;
  readonly secureBoot: boolean;
}): Promise<UefiFirmware> {
  for (const descriptor of await firmwareDescriptors()) {
    if (fits(descriptor, wanted)) return firmwareOf(descriptor, wanted.secureBoot);
  }
  throw new StasisError(
    'unsupported',
    `no UEFI firmware${wanted.secureBoot ? ' with Secure Boot' : ''} for machine ${wanted.machine} is installed: on Debian and Ubuntu, apt-get install ovmf`,
    { details: { ...wanted, directories: searchPath() } },
  );
}

/** All that is installed for this architecture, best first. What isn't understood is passed over. */
export async function firmwareDescriptors(): Promise<readonly Descriptor[]> {
  const files = new Map<string, string>();
  for (const directory of searchPath()) {
    for (const name of await namesIn(directory))
      if (name.endsWith('.json') && !files.has(name)) files.set(name, join(directory, name));
  }
  const found: Descriptor[] = [];
  for (const [, path] of [...files].toSorted(([one], [other]) => (one < other ? -1 : 1))) {
    const descriptor = await readDescriptor(path);
    if (descriptor !== undefined) found.push(descriptor);
  }
  return found;
}

/** The most important first. */
function searchPath(): readonly string[] {
  const config = process.env['XDG_CONFIG_HOME'] ?? join(homedir(), '.config');
  return [config, '/etc', '/usr/share'].map((directory) => join(directory, 'qemu/firmware'));
}

async function namesIn(directory: string): Promise<string[]> {
  try {
    return await readdir(directory);
  } catch (error) {
    if (['ENOENT', 'ENOTDIR', 'EACCES'].includes(errnoOf(error) ?? '')) return [];
    throw error;
  }
}

async function readDescriptor(path: string): Promise<Descriptor | undefined> {
  const descriptor = descriptorIn(await readFile(path, 'utf8'));
  if (descriptor === undefined) return undefined;
  const { executable, 'nvram-template': template } = descriptor.mapping;
  const isInstalled = (await isFile(executable.filename)) && (await isFile(template.filename));
  return isInstalled && isForUs(descriptor) ? descriptor : undefined;
}

/** @returns undefined for what is empty, which hides one of the same name, or of another kind */
export function descriptorIn(text: string): Descriptor | undefined {
  try {
    const descriptor: unknown = JSON.parse(text);
    return Value.Check(Descriptor, descriptor) ? descriptor : undefined;
  } catch {
    return undefined;
  }
}

/** A path that can't be one is none of a file either. */
async function isFile(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isFile();
  } catch (error) {
    if (errnoOf(error) !== undefined) return false;
    throw error;
  }
}

function isForUs(descriptor: Descriptor): boolean {
  return (
    descriptor['interface-types'].includes('uefi') &&
    descriptor.targets.some(({ architecture }) => architecture === 'x86_64')
  );
}

function fits(
  { targets, features }: Descriptor,
  { machine, secureBoot }: { readonly machine: string; readonly secureBoot: boolean },
): boolean {
  const forMachine = targets.some(
    ({ architecture, machines }) =>
      architecture === 'x86_64' && machines.some((pattern) => matchesPattern(machine, pattern)),
  );
  return forMachine && features.includes('secure-boot') === secureBoot;
}

/**
 * Patterns are those of a shell, of which descriptors use `*`. What comes after one is looked for from where the last was found, and
 * never again: no pattern takes long.
 */
export function matchesPattern(name: string, pattern: string): boolean {
  const [beginning = '', ...others] = pattern.split('*');
  const end = others.pop();
  if (end === undefined) return name === pattern;
  if (!name.startsWith(beginning)) return false;
  let at = beginning.length;
  for (const part of others) {
    const found = name.indexOf(part, at);
    if (found < 0) return false;
    at = found + part.length;
  }
  return name.length - at >= end.length && name.endsWith(end);
}

function firmwareOf({ mapping, features }: Descriptor, secureBoot: boolean): UefiFirmware {
  const file = ({ filename, format }: Static<typeof Flash>): FlashFile => ({ path: filename, format });
  return {
    type: 'uefi',
    secureBoot,
    smm: features.includes('requires-smm'),
    code: file(mapping.executable),
    template: file(mapping['nvram-template']),
  };
}
