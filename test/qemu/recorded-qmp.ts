import { once } from 'node:events';
import { createConnection, type Socket } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { Duplex } from 'node:stream';
import type { QemuProcess } from '../../src/qemu/process/process.ts';
import { QmpClient } from '../../src/qemu/qmp/client.ts';
import { fromStored } from '../../src/stored.ts';

interface Sent {
  readonly id: number;
  readonly execute: string;
}

/** What QEMU said. */
export interface Said {
  readonly id?: number;
  readonly event?: string;
  readonly return?:
    | unknown[]
    | {
        readonly status?: string;
        readonly ram?: { readonly normal: number; readonly duplicate: number };
      };
}

/** A command on its way, or what QEMU said, with the name of the command that it answers. */
export type Line = { readonly sent: string } | { readonly said: Said; readonly to: string | undefined };

/** Takes the place of what QEMU said; `undefined`: nothing was said. */
export type Change = (said: Said, to: string | undefined, before: readonly Line[]) => Said | undefined;

/** A QMP connection that is written down. */
export interface RecordedQmp {
  readonly qmp: QmpClient;
  /** In the order in which the client sent and received them. */
  readonly lines: readonly Line[];
}

/**
 * Takes the place of the process's own connection: QEMU serves one at a time. It ends with QEMU. By changing what QEMU
 * says, or losing it, a test makes certain what else would be a matter of luck.
 */
export async function recordQmp(process: QemuProcess, change: Change = (said) => said): Promise<RecordedQmp> {
  await process.qmp.close();
  const socket = createConnection(join(process.runDirectory, 'qmp.sock'));
  await once(socket, 'connect');
  const lines: Line[] = [];
  return { qmp: await QmpClient.over(recorded(socket, lines, change)), lines };
}

function recorded(socket: Socket, lines: Line[], change: Change): Duplex {
  const commands = new Map<number, string>();
  const stream = new Duplex({
    read: () => undefined,
    write: (command: Buffer, _encoding, done) => {
      const { id, execute } = fromStored<Sent>(String(command)); // the client writes one at a time
      commands.set(id, execute);
      lines.push({ sent: execute });
      socket.write(command, done);
    },
    destroy: (error, done) => {
      socket.destroy();
      done(error);
    },
  });
  const input = createInterface({ input: socket });
  input.on('error', () => undefined); // the socket's, which is told below
  input.on('line', (text) => {
    const original = fromStored<Said>(text);
    const to = original.id === undefined ? undefined : commands.get(original.id);
    const said = change(original, to, lines);
    if (said === undefined) return;
    lines.push({ said, to });
    stream.push(`${JSON.stringify(said)}\n`);
  });
  socket.on('error', (error) => stream.destroy(error));
  socket.on('close', () => stream.push(null));
  return stream;
}
