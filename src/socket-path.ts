/**
 * Unix sockets under long directories. The kernel keeps a socket's address in 108 bytes, terminating zero
 * included; a home directory or a test's temporary directory easily makes a longer path. A path through an open
 * directory, `/proc/self/fd/N/name`, names the same socket in a few bytes; one through the open socket itself names that
 * and nothing else.
 */
import { closeSync, constants, openSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import { StasisError } from './errors.ts';

const LONGEST_ADDRESS_BYTES = 107;
const LONGEST_NAME_BYTES = LONGEST_ADDRESS_BYTES - '/proc/self/fd/1234567/'.length;

/**
 * Calls `use` with a path of at most 107 bytes for the socket at `path`. The short path is only good until the
 * promise of `use` settles: connect or bind in it, and keep the long path to unlink or to tell a person.
 *
 * @throws `invalid-request` when the name itself is over 85 bytes; the `open` error of the directory, or whatever `use` throws
 */
export async function withShortSocketPath<T>(
  path: string,
  use: (shortPath: string) => Promise<T>,
): Promise<T> {
  if (Buffer.byteLength(path) <= LONGEST_ADDRESS_BYTES) return await use(path);
  if (Buffer.byteLength(basename(path)) > LONGEST_NAME_BYTES) {
    throw new StasisError(
      'invalid-request',
      `the name of the socket ${path} is too long (over ${LONGEST_NAME_BYTES} bytes)`,
    );
  }
  // Opened and closed synchronously, so that no I/O happens between the end of `use` and its caller: a fresh
  // socket has no owner for its 'error' event until then.
  const directory = openSync(dirname(path), constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    return await use(`/proc/self/fd/${directory}/${basename(path)}`);
  } finally {
    closeSync(directory);
  }
}

/** Names a file without opening it: open(2). Node has no name for it. */
const O_PATH = 0o10_000_000;

/**
 * Calls `use` with a short path to connect to the socket that is at `path` now. A symbolic link there isn't followed: whoever
 * may write to the directory can't send us to a socket that is not theirs (ECONNREFUSED).
 *
 * @throws the `open` error, ENOENT when nothing is there, or whatever `use` throws
 */
export async function withSocket<T>(path: string, use: (shortPath: string) => Promise<T>): Promise<T> {
  const socket = openSync(path, O_PATH | constants.O_NOFOLLOW);
  try {
    return await use(`/proc/self/fd/${socket}`);
  } finally {
    closeSync(socket);
  }
}
