/**
 * A connection to an NBD server that is only held: as long as it is open, a server that ends with its last client
 * stays. The kernel closes it with the process that has it, however that ends.
 */
import { once } from 'node:events';
import { connect } from 'node:net';
import { StasisError } from '../../errors.ts';
import { withSocket } from '../../socket-path.ts';
import { readBytes } from '../guest-socket.ts';

/** https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md, "fixed newstyle" negotiation. */
const GREETING = Buffer.from('NBDMAGICIHAVEOPT');
const GREETING_BYTES = 18;
const FIXED_NEWSTYLE_NO_ZEROES = 3;
const OPT_EXPORT_NAME = 1;
/** size, flags */
const EXPORT_BYTES = 10;
const TIMEOUT_MS = 10_000;

export interface NbdConnection extends Disposable {
  readonly sizeBytes: number;
  /** Resolves, never rejects, when either end has closed it. */
  readonly closed: Promise<void>;
}

/**
 * Connects to the nameless export at a unix socket, up to where a client would begin to read.
 * @throws StasisError `storage-failed` when nobody serves there, or something else does
 */
export async function connectNbd(path: string): Promise<NbdConnection> {
  const socket = await withSocket(path, (short) => Promise.resolve(connect(short)));
  const closed = new Promise<void>((resolve) => void socket.once('close', () => resolve()));
  const signal = AbortSignal.timeout(TIMEOUT_MS);
  try {
    await once(socket, 'connect', { signal });
    const greeting = await readBytes(socket, GREETING_BYTES, signal);
    if (!greeting.subarray(0, GREETING.length).equals(GREETING)) throw new Error('it is no NBD server');
    socket.write(exportByName());
    const sizeBytes = Number((await readBytes(socket, EXPORT_BYTES, signal)).readBigUInt64BE());
    socket.on('error', () => undefined); // its end is told by `closed`
    socket.resume();
    return { sizeBytes, closed, [Symbol.dispose]: () => void socket.destroy() };
  } catch (error) {
    socket.destroy();
    throw new StasisError('storage-failed', `nobody serves a disk at ${path}`, { cause: error });
  }
}

function exportByName(): Buffer {
  const request = Buffer.alloc(20);
  request.writeUInt32BE(FIXED_NEWSTYLE_NO_ZEROES);
  request.write('IHAVEOPT', 4, 'latin1');
  request.writeUInt32BE(OPT_EXPORT_NAME, 12);
  return request; // the name's length, 0, is there already
}
