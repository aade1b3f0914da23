/**
 * The source of a postcopy migration that never was a guest: it sends the memory of an image to a QEMU whose guest
 * runs already. What the guest asks for goes first, on a channel of its own (`postcopy-preempt`); behind that all the
 * rest is pushed, beginning with the neighbours of what was asked for last.
 *
 * Pages that are zero are not pushed: QEMU has emptied all memory at the beginning, and what it never got is zero
 * when it ends the migration. Who touches one before is sent it.
 *
 * On the channel for what is asked for goes nothing else. In the end QEMU closes it as soon as nobody waits for a page:
 * whatever was still on its way there would be lost.
 */
import { open, type FileHandle } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { StasisError } from '../../errors.ts';
import { readBitmap, readMemoryFile, type MemoryFile } from '../memory/memory-file.ts';
import { PAGE_BYTES, ramSectionEnd, ramSectionStart } from '../memory/migration-stream.ts';
import { STREAM_OFFSET } from '../migration.ts';
import { PageChunk, zeroHostPage, type Wrapping } from './page-chunk.ts';
import { PageLedger } from './page-ledger.ts';
import { PageWaits, type WaitFigures } from './page-waits.ts';
import { PagerChannel } from './pager-channel.ts';
import { askForReceived, closing, opening, resume, ReturnPath, type Reply } from './postcopy-stream.ts';

/** What is read, sent and then not to be overtaken in one piece: 1 ms at 250 MB/s. */
const CHUNK_BYTES = 256 << 10;
const UNWRAPPED: Wrapping = { head: Buffer.alloc(0), tail: Buffer.alloc(0) };

export interface PagerRequest {
  /** The memory file, a path. */
  readonly file: string;
  /** The name of the block that is the guest's memory … */
  readonly mainBlock: string;
  /** … and the size of its pages on the host: 4096, or 2 MiB of huge pages. */
  readonly hostPageBytes: number;
  /** An upper limit for what nobody has asked for, in bytes per second. */
  readonly pushLimit?: number | undefined;
}

export interface PagerProgress {
  /** The part that isn't zero. */
  readonly bytesDone: number;
  readonly bytesTotal: number;
  readonly waits: WaitFigures;
}

export class Pager implements AsyncDisposable {
  readonly #file: FileHandle;
  readonly #request: PagerRequest;
  readonly #memory: MemoryFile;
  readonly #ledgers: readonly PageLedger[];
  readonly #bytesTotal: number;
  readonly #waits = new PageWaits();
  /** from where on the push goes on */
  #cursor = { ledger: 0, page: 0 };

  private constructor(
    file: FileHandle,
    request: PagerRequest,
    memory: MemoryFile,
    ledgers: readonly PageLedger[],
  ) {
    this.#file = file;
    this.#request = request;
    this.#memory = memory;
    this.#ledgers = ledgers;
    this.#bytesTotal = this.#bytesDue;
  }

  /** Reads what the file holds, so that all is ready when QEMU is. @throws StasisError as `readMemoryFile` */
  static async open(request: PagerRequest): Promise<Pager> {
    const memory = await readMemoryFile(request.file, STREAM_OFFSET);
    const file = await open(request.file, 'r');
    const ledgers = await Promise.all(
      // The small blocks first, video memory for one: the guest's own is last.
      memory.blocks
        .toSorted((a, b) => Number(a.id === request.mainBlock) - Number(b.id === request.mainBlock))
        .map(async (block) => {
          const hostPageBytes = block.id === request.mainBlock ? request.hostPageBytes : PAGE_BYTES;
          return new PageLedger(block, hostPageBytes, await readBitmap(file, block));
        }),
    );
    return new Pager(file, request, memory, ledgers);
  }

  get progress(): PagerProgress {
    return {
      bytesDone: this.#bytesTotal - this.#bytesDue,
      bytesTotal: this.#bytesTotal,
      waits: this.#waits.figures(),
    };
  }

  /**
   * Serves the QEMU that listens at the socket, to the end.
   * @param recovering whether QEMU has part of the memory already, from a pager before
   * @throws StasisError `guest-crashed` when QEMU goes away first, `qemu-failed`, `image-damaged`
   */
  async serve(socketPath: string, recovering: boolean): Promise<void> {
    // QEMU takes the first connection for the stream, the second for the pages that it asks for.
    using main = await PagerChannel.connect(socketPath);
    using urgent = await PagerChannel.connect(socketPath);
    const replies = new Replies();
    const listening = this.#listen(main, urgent, replies);
    await Promise.race([this.#send(main, replies, recovering), listening]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file.close();
  }

  async #send(main: PagerChannel, replies: Replies, recovering: boolean): Promise<void> {
    await (recovering ? this.#recover(main, replies) : this.#open(main));
    await this.#push(main);
    await main.write(closing(this.#memory.ramSection));
    await replies.shut.promise;
  }

  /** Ends when QEMU is done with all of it, and with an error when it isn't. */
  async #listen(main: PagerChannel, urgent: PagerChannel, replies: Replies): Promise<void> {
    const failed = Promise.withResolvers<never>();
    const path = new ReturnPath(this.#memory.blocks);
    const listen = async (): Promise<void> => {
      for await (const bytes of main.read()) {
        for (const reply of path.push(bytes)) {
          if (reply.kind === 'pages') this.#answer(reply, urgent).catch(failed.reject);
          else replies.take(reply);
          if (reply.kind === 'shut') return;
        }
      }
      throw new StasisError('guest-crashed', 'QEMU went away before it had all of its memory');
    };
    await Promise.race([listen(), failed.promise]);
  }

  async #open(main: PagerChannel): Promise<void> {
    const { deviceStateOffset, devicesEnd, blocks } = this.#memory;
    const devices = Buffer.alloc(devicesEnd - deviceStateOffset);
    await this.#file.read(devices, 0, devices.length, deviceStateOffset);
    // In the order of the file, which is QEMU's own.
    const { mainBlock, hostPageBytes } = this.#request;
    const isHuge = (id: string) => id === mainBlock && hostPageBytes > PAGE_BYTES;
    const hostBlocks = blocks.map((block) => ({
      ...block,
      hugePageBytes: isHuge(block.id) ? hostPageBytes : undefined,
    }));
    await main.write(opening(this.#memory, hostBlocks, devices));
  }

  /** QEMU tells what it has, and when it is ready asks once more for all that its guest waits for. */
  async #recover(main: PagerChannel, replies: Replies): Promise<void> {
    await main.write(askForReceived(this.#memory.blocks));
    for (const ledger of this.#ledgers) ledger.markReceived(await replies.received(ledger.block.id));
    await main.write(resume());
    await replies.resumed.promise;
  }

  /**
   * The rest, piece by piece; the next one is read while one is sent. When there is a limit it isn't: what has been taken
   * can no longer be sent to who asks for it, and must not lie about.
   */
  async #push(main: PagerChannel): Promise<void> {
    const pages = Math.max(CHUNK_BYTES, this.#request.hostPageBytes) / PAGE_BYTES;
    const [chunk, otherChunk] = [new PageChunk(pages), new PageChunk(pages)];
    const { pushLimit } = this.#request;
    let next = this.#fillNext(chunk);
    for (let turn = 1; ; turn += 1) {
      const bytes = await next;
      if (bytes === undefined) return;
      if (pushLimit === undefined) next = this.#fillNext(turn % 2 === 0 ? chunk : otherChunk);
      next.catch(() => undefined); // looked at in the next round, unless sending fails first
      await main.write(bytes);
      this.#waits.pushed();
      if (pushLimit === undefined) continue;
      // Without a reference: the process must not live on for it when QEMU is gone.
      await delay((bytes.length / pushLimit) * 1000, undefined, { ref: false });
      next = this.#fillNext(chunk);
    }
  }

  async #fillNext(chunk: PageChunk): Promise<Buffer | undefined> {
    const found = this.#nextDue();
    if (found === undefined) return undefined;
    const { ledger, page } = found;
    const length = Math.max(1, CHUNK_BYTES / ledger.hostPageBytes);
    const section = this.#memory.ramSection;
    return chunk.fill(this.#file, ledger, ledger.takeDue(page, length), {
      head: ramSectionStart(section, 'part'),
      tail: ramSectionEnd(section),
    });
  }

  /** From the cursor on to the end of its block, and then wherever something is left. */
  #nextDue(): { ledger: PageLedger; page: number } | undefined {
    for (let step = 0; step <= this.#ledgers.length; step += 1) {
      const index = (this.#cursor.ledger + step) % this.#ledgers.length;
      const ledger = this.#ledgers[index];
      const page = ledger?.nextDue(step === 0 ? this.#cursor.page : 0);
      if (ledger === undefined || page === undefined) continue;
      this.#cursor = { ledger: index, page };
      return { ledger, page };
    }
    return undefined;
  }

  async #answer(request: PagesWanted, urgent: PagerChannel): Promise<void> {
    const index = this.#ledgers.findIndex(({ block }) => block.id === request.block);
    const ledger = this.#ledgers[index];
    if (ledger === undefined) return;
    const page = Math.floor(request.offset / ledger.hostPageBytes);
    if (!ledger.take(page)) return this.#waits.alreadyOnItsWay();
    const begin = this.#waits.begin();
    const isZero = ledger.isZero(page);
    if (!isZero) this.#cursor = { ledger: index, page: page + 1 };
    const bytes = isZero
      ? zeroHostPage(ledger, page)
      : await new PageChunk(ledger.pagesEach).fill(this.#file, ledger, [page], UNWRAPPED);
    try {
      await urgent.write(bytes);
    } catch (error) {
      if (urgent.isClosed) return; // the end, which `main` tells of
      throw error;
    }
    this.#waits.end(begin);
  }

  get #bytesDue(): number {
    return this.#ledgers.reduce((sum, { dueCount, hostPageBytes }) => sum + dueCount * hostPageBytes, 0);
  }
}

type PagesWanted = Extract<Reply, { kind: 'pages' }>;

/** What QEMU answers to what we say, for whoever waits for it. */
class Replies {
  readonly resumed = Promise.withResolvers<void>();
  readonly shut = Promise.withResolvers<void>();
  readonly #received = new Map<string, PromiseWithResolvers<Buffer>>();

  /** The pages that QEMU has of a block. */
  received(block: string): Promise<Buffer> {
    return this.#receivedOf(block).promise;
  }

  /** @throws StasisError `qemu-failed` when QEMU has given up */
  take(reply: Exclude<Reply, PagesWanted>): void {
    switch (reply.kind) {
      case 'resumed':
        return this.resumed.resolve();
      case 'received':
        return this.#receivedOf(reply.block).resolve(reply.bitmap);
      case 'shut':
        if (reply.status !== 0)
          throw new StasisError('qemu-failed', `QEMU ended the migration with status ${reply.status}`);
        return this.shut.resolve();
      default:
        return reply satisfies never;
    }
  }

  #receivedOf(block: string): PromiseWithResolvers<Buffer> {
    const known = this.#received.get(block) ?? Promise.withResolvers<Buffer>();
    this.#received.set(block, known);
    return known;
  }
}
