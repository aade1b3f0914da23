import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';

interface Message {
  readonly return?: unknown;
  readonly error?: { readonly desc: string };
}

/** QMP by hand, for what a test does beside the sources, or without them: one command at a time, events passed over. */
export class PlainQmp {
  readonly #lines: AsyncIterator<string>;
  readonly #output: Writable;

  private constructor(input: Readable, output: Writable) {
    this.#lines = createInterface({ input })[Symbol.asyncIterator]();
    this.#output = output;
  }

  static async over(input: Readable, output: Writable): Promise<PlainQmp> {
    const qmp = new PlainQmp(input, output);
    await qmp.ask('qmp_capabilities');
    return qmp;
  }

  /** What QEMU returns, taken to be of the type that it documents; an error is thrown with QEMU's words. */
  // oxlint-disable-next-line typescript/no-unnecessary-type-parameters
  async ask<T>(command: string, args: Readonly<Record<string, unknown>> = {}): Promise<T> {
    this.#output.write(`${JSON.stringify({ execute: command, arguments: args })}\n`);
    for (;;) {
      const line = await this.#lines.next();
      if (line.done === true) throw new Error(`QEMU ended before it answered ${command}`);
      // oxlint-disable-next-line typescript/no-unsafe-type-assertion
      const message = JSON.parse(line.value) as Message;
      if (message.error !== undefined) throw new Error(`${command}: ${message.error.desc}`);
      // oxlint-disable-next-line typescript/no-unsafe-type-assertion
      if (message.return !== undefined) return message.return as T;
    }
  }
}
