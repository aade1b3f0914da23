/**
 * Connections from other machines, each with what its last request was let in by. When that is revoked or has expired they
 * end, and with them whatever goes on there: streams of events, consoles, displays. At once, and whatever it is: one place
 * knows it, and not each route.
 */
import type { Socket } from 'node:net';

/** When what somebody is let in by ends, in milliseconds since the epoch, as it is now: what is used goes on, what is revoked has ended. */
type EndsAtMs = () => number;

/** Timers hold no more (2³¹ − 1 ms): then there is another look. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

export class Connections {
  readonly #open = new Map<Socket, { endsAtMs: EndsAtMs; timer: NodeJS.Timeout | undefined }>();

  /** From now on a connection is there for as long as that is good. */
  use(socket: Socket, endsAtMs: EndsAtMs): void {
    if (!this.#open.has(socket)) socket.once('close', () => this.#forget(socket));
    clearTimeout(this.#open.get(socket)?.timer);
    this.#open.set(socket, { endsAtMs, timer: undefined });
    this.#watch(socket);
  }

  /** Something was ended: ends what went on by it. @param except of the request that did so, which is still to be answered */
  endThoseThatEnded(except: Socket): void {
    for (const socket of this.#open.keys()) if (socket !== except) this.#watch(socket);
  }

  #watch(socket: Socket): void {
    const open = this.#open.get(socket);
    if (open === undefined) return;
    clearTimeout(open.timer);
    const leftMs = open.endsAtMs() - Date.now();
    if (leftMs <= 0) return void socket.destroy();
    open.timer = setTimeout(() => this.#watch(socket), Math.min(leftMs, LONGEST_TIMER_MS));
    open.timer.unref();
  }

  #forget(socket: Socket): void {
    clearTimeout(this.#open.get(socket)?.timer);
    this.#open.delete(socket);
  }
}
