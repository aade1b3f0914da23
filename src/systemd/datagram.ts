/**
 * One datagram to a unix socket, which Node can't send: socket(2), sendto(2) of the C library. Also to an abstract one, whose
 * name begins with a zero byte that systemd writes as `@` (unix(7)).
 */
import { getSystemErrorName } from 'node:util';
import koffi from 'koffi';
import { StasisError } from '../errors.ts';

const libc = koffi.load('libc.so.6');
const socket = libc.func('int socket(int domain, int type, int protocol)');
const sendto = libc.func(
  'int64_t sendto(int fd, const void *data, size_t length, int flags, const void *address, unsigned int addressLength)',
);
const close = libc.func('int close(int fd)');

const AF_UNIX = 1;
const SOCK_DGRAM = 2;
const SOCK_CLOEXEC = 0o2000000;
/** The receiver's queue is full rather than that we wait; its end is an error, no signal. */
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
/** `sun_path` of `struct sockaddr_un`; a path needs a byte less, for its terminating zero. */
const NAME_BYTES = 108;

/** @throws StasisError `internal` with the system's error, such as ECONNREFUSED when nobody listens */
export function sendDatagram(name: string, text: string): void {
  const address = socketAddress(name);
  const fd = Number(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (fd < 0) throw systemError('socket', name);
  try {
    const data = Buffer.from(text);
    const sent = sendto(fd, data, data.length, MSG_DONTWAIT | MSG_NOSIGNAL, address, address.length);
    if (Number(sent) !== data.length) throw systemError('sendto', name);
  } finally {
    close(fd);
  }
}

/** `struct sockaddr_un`: the family, then the name; an abstract one is as long as the structure says. */
export function socketAddress(name: string): Buffer {
  const path = name.startsWith('@') ? `\0${name.slice(1)}` : `${name}\0`;
  const address = Buffer.concat([Buffer.alloc(2), Buffer.from(path)]);
  address.writeUInt16LE(AF_UNIX);
  if (address.length <= 2 + NAME_BYTES) return address;
  throw new StasisError('internal', `the name of the socket ${name} is longer than ${NAME_BYTES} bytes`);
}

function systemError(call: string, name: string): StasisError {
  const errno = getSystemErrorName(-koffi.errno());
  return new StasisError('internal', `${call} failed on the socket ${name}: ${errno}`, {
    details: { errno, socket: name },
  });
}
