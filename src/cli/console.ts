/** The terminal as the guest's serial console. */
import { finished } from 'node:stream/promises';
import type { Duplex } from 'node:stream';
import { StasisError } from '../errors.ts';
import type { Session } from './session.ts';

/** Ctrl-], as telnet and virsh have it. */
const ESCAPE = 0x1d;

/**
 * Connects stdin and stdout to the console until Ctrl-] or until the guest or the daemon ends it. When stdin isn't
 * a terminal its end is not the console's: a script may want to listen only.
 *
 * @throws `daemon-unreachable` when the connection breaks
 */
export async function attachConsole({ client, output }: Session, guest: string): Promise<void> {
  const console = await client.openConsole(guest);
  using terminal = new RawTerminal();
  if (terminal.isTerminal) output.note(`connected to ${guest}; Ctrl-] leaves`);
  console.on('data', (bytes: Buffer) => {
    // A terminal slower than the guest holds the guest's output back, not our memory.
    if (process.stdout.write(bytes)) return;
    console.pause();
    process.stdout.once('drain', () => console.resume());
  });
  terminal.onInput((bytes) => forward(bytes, console));
  try {
    await finished(console, { writable: false });
  } catch (error) {
    if (!isPrematureClose(error)) {
      throw new StasisError('daemon-unreachable', `the console of ${guest} broke off`, {
        guest,
        cause: error,
      });
    }
  } finally {
    console.destroy();
  }
  if (terminal.isTerminal) process.stderr.write('\r\n');
}

function forward(bytes: Buffer, console: Duplex): void {
  const escape = bytes.indexOf(ESCAPE);
  if (escape === -1) {
    console.write(bytes);
    return;
  }
  console.write(bytes.subarray(0, escape));
  console.destroy();
}

/** The end that Ctrl-] makes. */
function isPrematureClose(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'ERR_STREAM_PREMATURE_CLOSE';
}

/** stdin byte by byte and without echo, for as long as this lives. */
class RawTerminal implements Disposable {
  readonly isTerminal = process.stdin.isTTY;
  #listener: ((bytes: Buffer) => void) | undefined;

  constructor() {
    if (this.isTerminal) process.stdin.setRawMode(true);
  }

  onInput(listener: (bytes: Buffer) => void): void {
    this.#listener = listener;
    process.stdin.on('data', listener);
  }

  [Symbol.dispose](): void {
    if (this.#listener !== undefined) process.stdin.off('data', this.#listener);
    if (this.isTerminal) process.stdin.setRawMode(false);
    process.stdin.pause();
    process.stdin.unref?.();
  }
}
