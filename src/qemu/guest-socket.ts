/** What QEMU, and what is beside it, serves for a guest: sockets in its run directory, or ports of the host. */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { StasisError, messageOf } from '../errors.ts';
import { withSocket } from '../socket-path.ts';

/** @throws the system's error when nobody serves there */
export function connectTo(path: string): Promise<Socket> {
  return withSocket(path, (short) => connected(connect(short)));
}

/** @throws the system's error when nobody serves there */
export function connectToPort(host: string, port: number): Promise<Socket> {
  return connected(connect(port, host));
}

/**
 * A connection to what a guest's QEMU serves: it may end at any moment.
 * @param what it is, in words
 * @throws StasisError `guest-crashed` when nobody serves it
 */
export async function servedFor(guest: string, what: string, connecting: Promise<Socket>): Promise<Socket> {
  try {
    return await connecting;
  } catch (error) {
    throw new StasisError(
      'guest-crashed',
      `nobody serves the ${what} of guest ${guest} (${messageOf(error)}): its QEMU process has just ended, or takes no connection; \`stasis show ${guest}\` tells which`,
      { guest, cause: error },
    );
  }
}

function connected(connecting: Socket): Promise<Socket> {
  return new Promise<Socket>((resolve, reject) => {
    connecting.once('error', reject);
    connecting.once('connect', () => {
      connecting.off('error', reject);
      resolve(connecting);
    });
  });
}

/** Exactly so many bytes of what comes. @throws when it ends before, or the signal comes */
export async function readBytes(socket: Socket, count: number, signal: AbortSignal): Promise<Buffer> {
  for (;;) {
    const bytes: unknown = socket.read(count);
    if (Buffer.isBuffer(bytes) && bytes.length === count) return bytes;
    if (socket.readableEnded || socket.destroyed) throw new Error('it closed the connection');
    await Promise.race([once(socket, 'readable', { signal }), once(socket, 'end', { signal })]);
  }
}
