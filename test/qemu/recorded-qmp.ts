import { once } from 'node:events';
import { createConnection, type Socket } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { Duplex } from 'node:stream';
import { QmpClient } from '../../src/qemu/qmp.ts';
import type { QemuProcess } from '../../src/qemu/process.ts';
import { fromStored } from '../../src/stored.ts';

/** One line of QMP, either way. */
export interface QmpLine {
  readonly id?: number;
  readonly execute?: string;
  readonly event?: string;
  return?: { readonly ram?: { readonly normal: number; readonly duplicate: number } };
}

/** A QMP connection that is written down, and whose answers a test may change on their way. */
export interface RecordedQmp {
  readonly qmp: QmpClient;
  /** In the order in which the client sent and received them. */
  readonly lines: readonly QmpLine[];
}

/** Takes the place of the process's own connection: QEMU serves one at a time. It ends with QEMU. */
export async function recordQmp(
  process: QemuProcess,
  change: (line: QmpLine) => void = () => undefined,
): Promise<RecordedQmp> {
  await process.qmp.close();
  const socket = createConnection(join(process.runDirectory, 'qmp.sock'));
  await once(socket, 'connect');
  const lines: QmpLine[] = [];
  return { qmp: await QmpClient.over(tapped(socket, lines, change)), lines };
}

function tapped(socket: Socket, lines: QmpLine[], change: (line: QmpLine) => void): Duplex {
  const tap = new Duplex({
    read: () => undefined,
    write: (chunk: Buffer, _encoding, done) => {
      lines.push(fromStored<QmpLine>(String(chunk))); // the client writes one command at a time
      socket.write(chunk, done);
    },
    destroy: (error, done) => {
      socket.destroy();
      done(error);
    },
  });
  createInterface({ input: socket }).on('line', (text) => {
    const line = fromStored<QmpLine>(text);
    change(line);
    lines.push(line);
    tap.push(`${JSON.stringify(line)}\n`);
  });
  socket.on('close', () => tap.push(null));
  return tap;
}
