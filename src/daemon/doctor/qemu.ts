/** QEMU, what it offers, and what the kernel allows it. */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { promisify } from 'node:util';
import { StasisError } from '../../errors.ts';
import type { Host } from '../../guests/host.ts';
import { proveKvm } from '../../qemu/build/accelerator.ts';
import type { QemuBuilds } from '../../qemu/build/builds.ts';
import { featuresOf, proveFaults, type Feature } from '../../qemu/build/features.ts';
import { USERFAULTFD } from '../../qemu/build/userfaultfd.ts';
import { QEMU_USER } from '../../qemu-user.ts';
import { degraded, ok, type Finding } from './check.ts';

export function qemu({ qemu: { path, versionText } }: Host): Promise<Finding> {
  return Promise.resolve(ok(`${versionText} at ${path}`));
}

/** Whom a guest that broke out of its QEMU would find itself to be. */
export async function qemuUser({ ownership: { user }, paths, qemu: { startedBy } }: Host): Promise<Finding> {
  if (user === undefined) {
    if (process.geteuid?.() !== 0) return ok("the daemon's own, who is not root");
    return degraded(
      'root: a guest that broke out of its QEMU would be root, behind its sandbox only',
      `\`stasis host install\` makes the user ${QEMU_USER}, as whom the system's daemon then runs it; for a daemon of another home, with any user, \`qemu: {user: ${QEMU_USER}}\` in stasis.yaml`,
    );
  }
  const name = user.name ?? String(user.uid);
  const closed = await closedTo(startedBy, [paths.data, paths.run]);
  if (closed.length === 0) return ok(`${name}, without any capability`);
  return degraded(
    `${name}, who can't get to ${closed.join(' and ')}: no guest can start`,
    'let others through the directories above (chmod o+x), or choose another user by `qemu.user` in stasis.yaml',
  );
}

/** Tried out: rights have more sources than the mode. */
async function closedTo(startedBy: readonly string[], directories: readonly string[]): Promise<string[]> {
  const [program = '', ...before] = startedBy;
  const closed: string[] = [];
  for (const directory of directories)
    await promisify(execFile)(program, [...before, 'test', '-x', directory]).catch(() =>
      closed.push(directory),
    );
  return closed;
}

/** Others that guests may run by. */
export async function otherBuilds({ builds }: Host): Promise<Finding> {
  if (builds.names.length === 0) return ok('none');
  const found = await Promise.all(builds.names.map((name) => describeBuild(builds, name)));
  const told = found.map(({ text }) => text).join('; ');
  return found.every(({ isThere }) => isThere)
    ? ok(told)
    : degraded(told, 'install what is missing, or correct `qemu: {builds: …}` in stasis.yaml');
}

async function describeBuild(
  builds: QemuBuilds,
  name: string,
): Promise<{ readonly isThere: boolean; readonly text: string }> {
  try {
    const { versionText, path } = await builds.get(name);
    return { isThere: true, text: `${name}: ${versionText} at ${path}` };
  } catch (error) {
    if (!(error instanceof StasisError)) throw error;
    return { isThere: false, text: `${name}: ${error.message}` };
  }
}

/** What each is for, and the QEMU that brought it. */
const USES: Readonly<Record<Feature, readonly [use: string, since: string]>> = {
  'mapped-ram': ['every image', '9.0'],
  multifd: ['writing and loading memory with several threads', '4.0'],
  'memory-file-offset': ['mapped restore', '8.2'],
  'background-snapshot': ['background capture', '6.0'],
  'postcopy-ram': ['lazy restore', '2.6'],
  'direct-io': ['stopped save with direct I/O', '9.1'],
  'exit-on-error': ['the reason of a failed restore', '9.1'],
};

export async function qemuFeatures(host: Host): Promise<Finding> {
  const offered = await featuresOf(host.qemu);
  const all = Object.entries(USES).map(([feature, [use, since]]) => ({
    is: [...offered].some((name) => name === feature),
    text: `${feature} (${use})`,
    since,
  }));
  const missing = all.filter(({ is }) => !is);
  if (missing.length === 0) return ok(all.map(({ text }) => text).join(', '));
  const newest = missing
    .map(({ since }) => since)
    .toSorted(byVersion)
    .at(-1);
  return degraded(
    `missing: ${missing.map(({ text }) => text).join(', ')}`,
    `install QEMU ${newest} or later, or name another one in STASIS_QEMU`,
  );
}

function byVersion(one: string, other: string): number {
  return one.localeCompare(other, 'en', { numeric: true });
}

export async function kvm(host: Host): Promise<Finding> {
  const { works, reason } = await proveKvm(host.qemu);
  if (works) return ok('proven by running a few instructions');
  return degraded(
    `${reason}; guests run under TCG, many times slower`,
    'enable virtualization in the firmware, load kvm_intel or kvm_amd, and let the daemon open /dev/kvm (group kvm)',
  );
}

export async function userfaultfd(host: Host): Promise<Finding> {
  const isRoot = process.getuid?.() === 0 && host.ownership.user === undefined;
  const refused = await proveFaults(host.qemu);
  const reasons = [refused['background-snapshot'], refused['postcopy-ram']].filter(
    (reason) => reason !== undefined,
  );
  if (reasons.length === 0) return ok('proven: QEMU was allowed to use it for both');
  return degraded(`refused: ${reasons.join('; ')}`, faultsCure(isRoot, existsSync(USERFAULTFD)));
}

/** @param hasDevice kernels from 6.1 on have the device; before, only the system call and its switch */
export function faultsCure(isRoot: boolean, hasDevice: boolean): string {
  if (isRoot) {
    return 'a kernel with CONFIG_USERFAULTFD from 5.7 on; in a container, allow the system call userfaultfd and CAP_SYS_PTRACE';
  }
  const sysctl =
    'sysctl vm.unprivileged_userfaultfd=1; to keep it: echo vm.unprivileged_userfaultfd=1 > /etc/sysctl.d/60-userfaultfd.conf';
  if (!hasDevice) return `as root: ${sysctl}`;
  return [
    'as root, for the members of a group, here kvm (usermod -aG kvm USER, and a new login):',
    `echo 'KERNEL=="userfaultfd", GROUP="kvm", MODE="0660"' > /etc/udev/rules.d/60-userfaultfd.rules`,
    `udevadm control --reload && udevadm trigger --name-match=userfaultfd`,
    `or for every user: ${sysctl}`,
  ].join('\n');
}
