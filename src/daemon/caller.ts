/**
 * Who calls. On the unix socket the kernel says it: the process at the other end as it was when it connected
 * (SO_PEERCRED, unix(7)). A request that came by `stasis web` is that process's, and tells which browser's session it
 * is for; whoever can open the socket could say so as well, but only of itself. From another machine it is a credential.
 */
import { execFile } from 'node:child_process';
import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import { endianness } from 'node:os';
import { TLSSocket } from 'node:tls';
import { promisify } from 'node:util';
import koffi from 'koffi';
import { WEB_SESSION_HEADER } from '../api/constants.ts';

export interface Caller {
  /** by which way */
  readonly via: 'socket' | 'web' | 'https';
  readonly uid: number | null;
  readonly gid: number | null;
  readonly pid: number | null;
  /** name of the user, if it has one */
  readonly user: string | null;
  /** which session of the page, by a name that opens nothing */
  readonly session: string | null;
  /** from which address of another machine */
  readonly address: string | null;
  /** whose token or certificate it was; null also when it was not good */
  readonly credential: string | null;
}

/** <asm-generic/socket.h>, the same on x86-64 and arm64 */
const SOL_SOCKET = 1;
const SO_PEERCRED = 17;
/** `struct ucred`: pid, uid, gid, 32 bits each */
const UCRED_BYTES = 12;
const SESSION = /^[\w-]{1,64}$/;

const run = promisify(execFile);
const credentials = new WeakMap<Socket, Credentials>();
const users = new Map<number, Promise<string | null>>();

type Credentials = Pick<Caller, 'uid' | 'gid' | 'pid'>;

/** Remembers whose credential a request came with, and by which session of the page. */
export function nameCredential(
  request: IncomingMessage,
  credential: string,
  session: string | undefined,
): void {
  shownBy.set(request, { credential, session: session ?? null });
}

const shownBy = new WeakMap<
  IncomingMessage,
  { readonly credential: string; readonly session: string | null }
>();

/** Who sent a request. Never fails: what can't be known is null. */
export async function callerOf(request: IncomingMessage): Promise<Caller> {
  const { socket, headers } = request;
  if (socket instanceof TLSSocket) return remoteCaller(request);
  const known = credentials.get(socket) ?? readCredentials(socket);
  credentials.set(socket, known);
  const told = headers[WEB_SESSION_HEADER];
  const session = typeof told === 'string' && SESSION.test(told) ? told : null;
  return {
    via: session === null ? 'socket' : 'web',
    ...known,
    user: known.uid === null ? null : await userName(known.uid),
    session,
    address: null,
    credential: null,
  };
}

function remoteCaller(request: IncomingMessage): Caller {
  const address = request.socket.remoteAddress ?? null;
  const { credential, session } = shownBy.get(request) ?? { credential: null, session: null };
  return { via: 'https', uid: null, gid: null, pid: null, user: null, session, address, credential };
}

function readCredentials(socket: Socket): Credentials {
  const descriptor = descriptorOf(socket);
  const ucred = Buffer.alloc(UCRED_BYTES);
  const length = Buffer.alloc(4);
  write32(length, UCRED_BYTES);
  if (descriptor === undefined || getsockopt(descriptor, SOL_SOCKET, SO_PEERCRED, ucred, length) !== 0)
    return { uid: null, gid: null, pid: null };
  return { pid: read32(ucred, 0), uid: read32(ucred, 4), gid: read32(ucred, 8) };
}

const getsockopt: (fd: number, level: number, name: number, value: Buffer, length: Buffer) => number = koffi
  .load('libc.so.6')
  .func('int getsockopt(int fd, int level, int name, void *value, void *length)');

/** Node doesn't tell the descriptor of a socket but by the handle that libuv's wrapper is. */
function descriptorOf(socket: Socket): number | undefined {
  // oxlint-disable-next-line no-underscore-dangle -- its name is Node's
  const handle: unknown = '_handle' in socket ? socket._handle : undefined;
  if (typeof handle !== 'object' || handle === null || !('fd' in handle)) return undefined;
  return typeof handle.fd === 'number' && handle.fd >= 0 ? handle.fd : undefined;
}

/** By getent(1), which asks whatever this host has its users from; a process once per user. */
function userName(uid: number): Promise<string | null> {
  const known = users.get(uid) ?? lookUp(uid);
  users.set(uid, known);
  return known;
}

async function lookUp(uid: number): Promise<string | null> {
  try {
    const { stdout } = await run('getent', ['passwd', String(uid)], { timeout: 5_000 });
    return stdout.split(':')[0] ?? null;
  } catch {
    return null; // a uid without a name, as in a container
  }
}

const isLittle = endianness() === 'LE';

function read32(buffer: Buffer, offset: number): number {
  return isLittle ? buffer.readUInt32LE(offset) : buffer.readUInt32BE(offset);
}

function write32(buffer: Buffer, value: number): void {
  if (isLittle) buffer.writeUInt32LE(value);
  else buffer.writeUInt32BE(value);
}
