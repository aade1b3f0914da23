/**
 * The pager's own process: started in the run directory of its QEMU, it reads what to do there, waits until it is told
 * on standard input that QEMU listens, and ends when QEMU has all of its memory, or is gone.
 *
 * It loads nothing that it doesn't need: it starts while QEMU does, and must not be the later of the two.
 */
import { text } from 'node:stream/consumers';
import { messageOf, StasisError } from '../../errors.ts';
import { PAGER_SOCKET, readPagerRequest, writePagerStatus, type PagerStatus } from './pager-files.ts';
import { Pager } from './pager.ts';

const STATUS_INTERVAL_MS = 250;
const HERE = '.';

/** What is written to its standard input, and nothing else. */
type Order = 'serve' | 'recover';

async function main(): Promise<void> {
  const request = await readPagerRequest(HERE);
  if (request === undefined) throw new StasisError('internal', 'the pager was not told what to serve');
  await using pager = await Pager.open(request);
  const order = await readOrder();
  if (order === undefined) return; // whoever started it gave up
  const writing = new StatusWriter(pager);
  try {
    await pager.serve(PAGER_SOCKET, order === 'recover');
    await writing.end('done');
  } catch (error) {
    await writing.end('failed', messageOf(error));
    throw error;
  }
}

async function readOrder(): Promise<Order | undefined> {
  const order = (await text(process.stdin)).trim();
  return order === 'serve' || order === 'recover' ? order : undefined;
}

/** Tells how far the pager is, now and then. */
class StatusWriter {
  readonly #pager: Pager;
  readonly #timer: NodeJS.Timeout;
  #last: Promise<void> = Promise.resolve();

  constructor(pager: Pager) {
    this.#pager = pager;
    this.#timer = setInterval(() => this.#write('serving'), STATUS_INTERVAL_MS);
    this.#write('serving');
  }

  async end(state: 'done' | 'failed', reason?: string): Promise<void> {
    clearInterval(this.#timer);
    this.#write(state, reason);
    await this.#last;
  }

  #write(state: PagerStatus['state'], reason?: string): void {
    const status: PagerStatus = { ...this.#pager.progress, at: Date.now(), state, reason };
    // When the directory is gone, so is QEMU, and nobody reads it.
    this.#last = this.#last.then(() => writePagerStatus(HERE, status)).catch(() => undefined);
  }
}

try {
  await main();
} catch (error) {
  process.stderr.write(`${messageOf(error)}\n`);
  process.exitCode = 1;
}
