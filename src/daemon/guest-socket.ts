/** Sockets that QEMU serves in a guest's run directory. */
import { connect, type Socket } from 'node:net';
import { withShortSocketPath } from '../socket-path.ts';

/** @throws the system's error when nobody serves there */
export function connectTo(path: string): Promise<Socket> {
  return withShortSocketPath(
    path,
    (short) =>
      new Promise<Socket>((resolve, reject) => {
        const connecting = connect(short);
        connecting.once('error', reject);
        connecting.once('connect', () => {
          connecting.off('error', reject);
          resolve(connecting);
        });
      }),
  );
}
