/**
 * Whom QEMU runs as, where the daemon is root: a user that owns nothing but what is given to it, so that a guest which breaks out
 * of its QEMU finds itself without rights. setpriv(1), of util-linux, becomes the program after it has given up everything.
 */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

export interface QemuUser {
  /** null for a bare number, of which no group is known either */
  readonly name: string | null;
  readonly uid: number;
  readonly gid: number;
}

/** @param name of a user of this host, or the number of one, who need not be known here; undefined when there is no such user */
export async function findUser(name: string): Promise<QemuUser | undefined> {
  const known = await lookUp(name);
  if (known !== undefined || !/^\d+$/.test(name)) return known;
  return { name: null, uid: Number(name), gid: Number(name) };
}

/** By getent(1), which asks whatever this host has its users from. */
async function lookUp(name: string): Promise<QemuUser | undefined> {
  try {
    const { stdout } = await promisify(execFile)('getent', ['passwd', name], { timeout: 5_000 });
    const [found = null, , uid, gid] = stdout.split(':');
    return { name: found, uid: Number(uid), gid: Number(gid) };
  } catch {
    return undefined; // status 2: there is none
  }
}

export interface Privileges {
  /** it starts a helper that is set-user-ID, which is how a card is plugged into a bridge */
  readonly startsHelper?: boolean;
  /** it configures the network that it is in: one of its own, where nothing else is */
  readonly ownsNetwork?: boolean;
}

/**
 * What a program is preceded by so that it runs as that user, with the user's groups (kvm, say) and without any capability,
 * now or later. Nothing without a user: then it runs as we do.
 */
export function runAs(user: QemuUser | undefined, privileges: Privileges = {}): readonly string[] {
  if (user === undefined) return [];
  const { startsHelper = false, ownsNetwork = false } = privileges;
  const kept = ownsNetwork ? '-all,+net_admin' : '-all';
  return [
    'setpriv',
    ...['--reuid', user.name ?? String(user.uid), '--regid', String(user.gid)],
    user.name === null ? '--clear-groups' : '--init-groups',
    ...[`--inh-caps=${kept}`, ...(ownsNetwork ? ['--ambient-caps=+net_admin'] : [])],
    ...(startsHelper ? [] : [`--bounding-set=${kept}`, '--no-new-privs']),
  ];
}
