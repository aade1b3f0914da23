/** What QEMU serves for a guest: sockets in its run directory, or ports of the host. */
import { connect, type Socket } from 'node:net';
import { withSocket } from '../socket-path.ts';

/** @throws the system's error when nobody serves there */
export function connectTo(path: string): Promise<Socket> {
  return withSocket(path, (short) => connected(connect(short)));
}

/** @throws the system's error when nobody serves there */
export function connectToPort(host: string, port: number): Promise<Socket> {
  return connected(connect(port, host));
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
