/**
 * The long way itself, as a process: carries packets between two TUN devices (tun(4)), each of them later by the given time. netem(8)
 * does the same in the kernel where that has it; this is as real to everything above it: packets of whole TCP connections.
 * `carrier.ts DEVICE DEVICE DELAY_MS`; tells `ready`, and then each TCP connection that is begun.
 */
import { openSync, read, writeSync } from 'node:fs';
import koffi from 'koffi';
import { errnoOf } from '../../src/errors.ts';

/** <linux/if_tun.h> */
const TUNSETIFF = 0x4004_54ca;
const IFF_TUN_NO_PI = 0x1001;
/** `struct ifreq`: a name of 16 bytes, then the flags */
const IFREQ_BYTES = 40;
const FLAGS_OFFSET = 16;
const LARGEST_PACKET_BYTES = 65_536;
const TCP = 6;

const ioctl: (fd: number, request: number, argument: Buffer) => number = koffi
  .load('libc.so.6')
  .func('int ioctl(int fd, ulong request, void *argument)');

const [, , here = '', there = '', delay = ''] = process.argv;
const [a, b] = [openTun(here), openTun(there)];
carry(a, b);
carry(b, a);
process.send?.('ready');

function openTun(name: string): number {
  const descriptor = openSync('/dev/net/tun', 'r+');
  const request = Buffer.alloc(IFREQ_BYTES);
  request.write(name);
  request.writeUInt16LE(IFF_TUN_NO_PI, FLAGS_OFFSET);
  if (ioctl(descriptor, TUNSETIFF, request) !== 0) throw new Error(`no device ${name}: is this root?`);
  return descriptor;
}

/** One packet with each read: none overtakes another, since all wait equally long. */
function carry(from: number, to: number): void {
  const packet = Buffer.alloc(LARGEST_PACKET_BYTES);
  read(from, packet, 0, packet.length, null, (error, length) => {
    if (error !== null) throw error;
    const copy = Buffer.from(packet.subarray(0, length));
    if (beginsConnection(copy)) process.send?.('connection');
    setTimeout(() => deliver(to, copy), Number(delay));
    carry(from, to);
  });
}

/** To a device that isn't up, as at the beginning, nothing is: it is lost, as packets are. */
function deliver(to: number, packet: Buffer): void {
  try {
    writeSync(to, packet);
  } catch (error) {
    if (errnoOf(error) !== 'EIO') throw error;
  }
}

/** IPv4, TCP, SYN without ACK. */
function beginsConnection(packet: Buffer): boolean {
  const [first = 0] = packet;
  if (first >> 4 !== 4 || packet[9] !== TCP) return false;
  const flags = packet[(first & 0x0f) * 4 + 13] ?? 0;
  return (flags & 0x12) === 0x02;
}
