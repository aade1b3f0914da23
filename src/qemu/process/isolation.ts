/**
 * A QEMU in a network namespace of its own: it has network cards, and no network (network_namespaces(7)). By unshare(1), of
 * util-linux, which becomes QEMU. Root just does it; anybody else needs a user namespace too, in which they are root.
 */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

/** What QEMU's command line is preceded by. */
export function isolated(): readonly string[] {
  const asRoot = process.geteuid?.() === 0 ? [] : ['--user', '--map-root-user'];
  return ['unshare', ...asRoot, '--net', '--'];
}

/** Whether this process may make such a one, with a tap device in it: tried out. */
export async function canIsolate(): Promise<boolean> {
  const [program, ...args] = isolated();
  if (program === undefined) return false;
  try {
    await promisify(execFile)(program, [...args, 'test', '-r', '/dev/net/tun', '-a', '-w', '/dev/net/tun']);
    return true;
  } catch {
    return false;
  }
}
