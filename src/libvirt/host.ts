/** A host's libvirt: which guests it knows, which of them it is running, and what its networks are. */
import { access, readdir, readFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { errnoOf, messageOf, StasisError } from '../errors.ts';
import { parseXml, type XmlNode } from './xml.ts';

/** Where a libvirt keeps things. */
export interface LibvirtPaths {
  /** a file of XML per guest, `networks` and `autostart` beside them */
  readonly guests: string;
  /** a pid file per running guest; when it isn't known, running guests are found as processes */
  readonly run?: string;
  /** memory that `virsh managedsave` wrote */
  readonly saved?: string;
}

export const SYSTEM_PATHS = {
  guests: '/etc/libvirt/qemu',
  run: '/run/libvirt/qemu',
  saved: '/var/lib/libvirt/qemu/save',
} as const satisfies LibvirtPaths;

/** @throws StasisError `not-found` when there is no such directory, `invalid-request` when it can't be read */
export async function listDomains({ guests }: LibvirtPaths): Promise<string[]> {
  try {
    const entries = await readdir(guests, { withFileTypes: true });
    return entries
      .filter((entry) => entry.isFile() && entry.name.endsWith('.xml'))
      .map((entry) => basename(entry.name, '.xml'))
      .toSorted();
  } catch (error) {
    const isMissing = errnoOf(error) === 'ENOENT';
    throw new StasisError(
      isMissing ? 'not-found' : 'invalid-request',
      isMissing
        ? `there is no directory ${guests}: is libvirt on this host? --from names another directory`
        : `${guests} can't be read: ${messageOf(error)}; it is root's`,
      { cause: error },
    );
  }
}

/** @throws StasisError `guest-not-found` */
export async function readDomainFile(
  { guests }: LibvirtPaths,
  name: string,
): Promise<{ text: string; source: string }> {
  const source = join(guests, `${name}.xml`);
  try {
    return { text: await readFile(source, 'utf8'), source };
  } catch (error) {
    throw new StasisError(
      'guest-not-found',
      `libvirt has no guest "${name}" in ${guests}: ${messageOf(error)}`,
      {
        guest: name,
        cause: error,
      },
    );
  }
}

/** The bridges of libvirt's networks, by the networks' names. What can't be read is not known. */
export async function bridgesOf({ guests }: LibvirtPaths): Promise<ReadonlyMap<string, string>> {
  const directory = join(guests, 'networks');
  const bridges = new Map<string, string>();
  for (const file of await readdir(directory).catch(() => [])) {
    if (!file.endsWith('.xml')) continue;
    const network = await parseXml(await readFile(join(directory, file), 'utf8'), file);
    const name = childOf(network, 'name')?.text;
    const bridge = childOf(network, 'bridge')?.attributes.get('name');
    if (name !== undefined && bridge !== undefined) bridges.set(name, bridge);
  }
  return bridges;
}

function childOf(node: XmlNode, name: string): XmlNode | undefined {
  return node.children.find((child) => child.name === name);
}

/**
 * A guest whose disks libvirt writes to, or whose memory it keeps, is left alone.
 * @throws StasisError `invalid-state` with the reason
 */
export async function refuseInUse(
  paths: LibvirtPaths,
  name: string,
  uuid: string | undefined,
): Promise<void> {
  const pid = (await pidOf(paths, name)) ?? (await findByUuid(uuid));
  if (pid !== undefined) {
    throw new StasisError(
      'invalid-state',
      `guest ${name} is running under libvirt (process ${pid}); shut it down first: virsh shutdown ${name}`,
      { guest: name, details: { pid } },
    );
  }
  const saved = paths.saved === undefined ? undefined : join(paths.saved, `${name}.save`);
  if (saved !== undefined && (await exists(saved))) {
    throw new StasisError(
      'invalid-state',
      `libvirt keeps memory of guest ${name} in ${saved}, which belongs to what is on its disks now; start it under ` +
        `libvirt and shut it down, or give that memory up: virsh managedsave-remove ${name}`,
      { guest: name },
    );
  }
}

/** Whether libvirt starts it when the host boots. */
export async function isAutostarted({ guests }: LibvirtPaths, name: string): Promise<boolean> {
  return exists(join(guests, 'autostart', `${name}.xml`));
}

/** libvirt removes the file when the guest ends; one that was left by a crash names no QEMU. */
async function pidOf({ run }: LibvirtPaths, name: string): Promise<number | undefined> {
  if (run === undefined) return undefined;
  const pid = Number(await readFile(join(run, `${name}.pid`), 'utf8').catch(() => 'none'));
  if (!Number.isSafeInteger(pid)) return undefined;
  return (await argumentsOf(pid)).some((argument) => argument.includes('qemu')) ? pid : undefined;
}

/** A QEMU that was started for this very guest, whoever did and wherever its files are. */
async function findByUuid(uuid: string | undefined): Promise<number | undefined> {
  if (uuid === undefined) return undefined;
  for (const entry of await readdir('/proc')) {
    if (!/^\d+$/.test(entry)) continue;
    const words = await argumentsOf(Number(entry));
    const at = words.indexOf('-uuid');
    if (at >= 0 && words[at + 1]?.toLowerCase() === uuid.toLowerCase()) return Number(entry);
  }
  return undefined;
}

/** @returns none for a process that is gone */
async function argumentsOf(pid: number): Promise<string[]> {
  return (await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')).split('\0');
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
