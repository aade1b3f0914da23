/** Serial consoles. QEMU serves one client per line, so the daemon is that client and any number of people share it. */
import type { Socket } from 'node:net';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import type { GuestRecord } from '../catalog/guests.ts';
import { StasisError } from '../errors.ts';
import { SERIAL_SOCKET } from '../guests/command-line.ts';
import { storedDefinition } from '../guests/definition.ts';
import { connectTo, servedFor } from '../qemu/guest-socket.ts';
import type { ViewContext } from './views.ts';

/** Lines that somebody looks at, by the run directory of their process. */
export type SerialLines = Map<string, Promise<SerialLine>>;

/**
 * The serial line of a guest that runs.
 * @throws StasisError `unsupported` for a guest that has none, `invalid-state` for one that doesn't run, `guest-crashed`
 */
export function serialLine(
  { host }: ViewContext,
  guest: GuestRecord,
  lines: SerialLines,
): Promise<SerialLine> {
  if (!storedDefinition(guest).serial) {
    throw new StasisError(
      'unsupported',
      `guest ${guest.name} has no serial console; define it with \`serial: true\``,
      { guest: guest.name },
    );
  }
  return shared(lines, guest.name, host.supervisor.get(guest.uuid, guest.name).runDirectory);
}

/** The guest's line, opened by the first who looks at it and given up with the last. */
async function shared(lines: SerialLines, guest: string, runDirectory: string): Promise<SerialLine> {
  const known = lines.get(runDirectory);
  if (known !== undefined) return known;
  const opening = SerialLine.open(
    servedFor(guest, 'serial console', connectTo(join(runDirectory, SERIAL_SOCKET))),
    () => lines.delete(runDirectory),
  );
  lines.set(runDirectory, opening);
  try {
    return await opening;
  } catch (error) {
    lines.delete(runDirectory);
    throw error;
  }
}

/** A viewer that reads nothing while so much waits for it is let go. */
const MAX_BACKLOG_BYTES = 1024 ** 2;

export class SerialLine {
  readonly #line: Socket;
  readonly #onGivenUp: () => void;
  readonly #viewers = new Set<Duplex>();
  #isGivenUp = false;

  private constructor(line: Socket, onGivenUp: () => void) {
    this.#line = line;
    this.#onGivenUp = onGivenUp;
    line.on('data', (data) => this.#tell(data));
    line.on('error', () => line.destroy());
    line.on('close', () => {
      this.#giveUp();
      for (const viewer of this.#viewers) viewer.end();
    });
  }

  static async open(connecting: Promise<Socket>, onGivenUp: () => void): Promise<SerialLine> {
    return new SerialLine(await connecting, onGivenUp);
  }

  /** The line is held as long as anybody looks at it. */
  join(viewer: Duplex): void {
    this.#viewers.add(viewer);
    viewer.on('data', (data: Buffer) => this.#line.write(data));
    viewer.on('close', () => this.#leave(viewer));
    viewer.on('end', () => viewer.end());
    if (viewer.destroyed) this.#leave(viewer);
  }

  #leave(viewer: Duplex): void {
    this.#viewers.delete(viewer);
    if (this.#viewers.size > 0) return;
    this.#giveUp();
    this.#line.destroy();
  }

  /** Told once: after that another line may stand in this one's place. */
  #giveUp(): void {
    if (this.#isGivenUp) return;
    this.#isGivenUp = true;
    this.#onGivenUp();
  }

  #tell(data: Buffer): void {
    for (const viewer of this.#viewers) {
      viewer.write(data);
      if (viewer.writableLength > MAX_BACKLOG_BYTES) viewer.destroy();
    }
  }
}
