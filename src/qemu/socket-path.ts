import { open } from 'node:fs/promises';
import { basename, dirname } from 'node:path';

/** `sun_path` of `struct sockaddr_un` has 108 bytes, the last one for the terminating NUL (unix(7)). */
export const MAX_SOCKET_PATH_BYTES = 107;

/**
 * Runs `use` with a path to the same socket that fits into a socket address. A longer path is reached through
 * its directory's descriptor, `/proc/self/fd/<fd>/<name>`, which is valid only while `use` runs and only in
 * this process. The socket need not exist yet: the same trick serves to bind one.
 *
 * @throws the errors of `use`, and Node's system errors when the directory can't be opened
 */
export async function withShortSocketPath<T>(
  path: string,
  use: (shortPath: string) => Promise<T>,
): Promise<T> {
  if (Buffer.byteLength(path) <= MAX_SOCKET_PATH_BYTES) return use(path);
  await using directory = await open(dirname(path), 'r');
  return await use(`/proc/self/fd/${directory.fd}/${basename(path)}`);
}
