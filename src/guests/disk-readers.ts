/**
 * Who reads a disk of an image from outside: one process each (qemu/block/disk-server.ts) with a directory of its own, which
 * ends with its last client and outlives the daemon. As long as it is there, no layer that it reads may change or go: it
 * counts as pinned, whether or not the image is still there.
 *
 * All that is known of a reader stands in its directory; a new daemon finds it again there.
 */
import { EventEmitter } from 'node:events';
import { watch } from 'node:fs';
import { access, readdir } from 'node:fs/promises';
import { basename, join } from 'node:path';
import Type, { type Static } from 'typebox';
import Value from 'typebox/value';
import { errnoOf } from '../errors.ts';
import type { Log } from '../log.ts';
import { diskServerSocket, endDiskServer, findDiskServer, serveDisk } from '../qemu/block/disk-server.ts';
import type { DiskFormat } from '../qemu/block/image-tool.ts';
import { hasEnded } from '../qemu/process/process-scan.ts';
import { readOwnFile, removeShared, writeOwnFile } from '../qemu/process/run-files.ts';
import { runAs } from '../qemu/process/user.ts';
import type { Ownership } from './ownership.ts';

const ReaderRecord = Type.Object({
  /** that of the operation which made it */
  id: Type.String(),
  /** UUID */
  guest: Type.String(),
  guestName: Type.String(),
  image: Type.String(),
  disk: Type.String(),
  sizeBytes: Type.Number(),
  /** ids of what is read, the pinned layer first */
  layers: Type.Array(Type.String()),
});
export type ReaderRecord = Readonly<Static<typeof ReaderRecord>>;

interface LiveReader {
  readonly record: ReaderRecord;
  readonly pid: number;
  /** ends the looking out for its end */
  readonly unwatch: () => void;
}

const RECORD = 'reader.json';
/** So long the one who asked has to connect, before the reader ends for want of clients. */
const CLAIM_MS = 30_000;

export class DiskReaders implements AsyncDisposable {
  readonly #directory: string;
  readonly #binary: string;
  readonly #ownership: Ownership;
  readonly #log: Log;
  readonly #live = new Map<string, LiveReader>();
  /** the daemon's own connections, until who asked has theirs */
  readonly #unclaimed = new Map<string, Disposable>();
  readonly #events = new EventEmitter<{ ended: [ReaderRecord] }>();

  /** @param options.binary path of `qemu-nbd` */
  constructor(options: {
    readonly runDirectory: string;
    readonly binary: string;
    readonly ownership: Ownership;
    readonly log: Log;
  }) {
    this.#directory = join(options.runDirectory, 'readers');
    this.#binary = options.binary;
    this.#ownership = options.ownership;
    this.#log = options.log;
  }

  /** Calls back when a reader has ended: what it read may go now, if nothing else holds it. */
  onEnded(listener: (reader: ReaderRecord) => void): void {
    this.#events.on('ended', listener);
  }

  /** Where its clients connect. @throws StasisError `unsupported` when the path is too long for a socket */
  socketOf(id: string): string {
    return diskServerSocket(this.#directoryOf(id));
  }

  find(id: string): ReaderRecord | undefined {
    return this.#live.get(id)?.record;
  }

  async list(): Promise<ReaderRecord[]> {
    for (const [id, { pid }] of this.#live) if (await hasEnded(pid)) await this.#forget(id);
    return [...this.#live.values()].map(({ record }) => record);
  }

  /** Ids of all layers that are being read. */
  async layers(): Promise<ReadonlySet<string>> {
    return new Set((await this.list()).flatMap(({ layers }) => layers));
  }

  /**
   * Starts a reader; whoever asked for it connects within half a minute. Repeatable.
   * @throws StasisError `storage-failed`, `qemu-missing`
   */
  async open(record: ReaderRecord, disk: { path: string; format: DiskFormat }): Promise<void> {
    const directory = this.#directoryOf(record.id);
    await this.#ownership.makeShared(directory);
    await writeOwnFile(join(directory, RECORD), JSON.stringify(record));
    const program = [...runAs(this.#ownership.user), this.#binary];
    const { pid, client } = await serveDisk(program, directory, disk);
    this.#follow(record, pid);
    this.#unclaimed.set(record.id, client);
    setTimeout(() => this.claimed(record.id), CLAIM_MS).unref();
  }

  /** Who asked for a reader has connected: from now on it ends with its clients. Repeatable. */
  claimed(id: string): void {
    this.#unclaimed.get(id)?.[Symbol.dispose]();
    this.#unclaimed.delete(id);
  }

  /** Makes sure that nothing is left of a reader. Repeatable. */
  async discard(id: string): Promise<void> {
    await endDiskServer(this.#directoryOf(id));
    await this.#forget(id);
  }

  /** Finds the readers of a former daemon again, and removes what is left of others. Called once, at start. */
  async reconnect(): Promise<void> {
    for (const name of await readdir(this.#directory).catch(nothingThere)) {
      const directory = join(this.#directory, name);
      const record = await recordIn(directory);
      const pid = await findDiskServer(directory);
      if (record !== undefined && pid !== undefined) this.#follow(record, pid);
      else await removeShared(directory);
    }
  }

  /** Lets go of all readers, which go on as long as they have clients. */
  [Symbol.asyncDispose](): Promise<void> {
    for (const { unwatch } of this.#live.values()) unwatch();
    this.#live.clear();
    return Promise.resolve();
  }

  /** The server removes its socket at its end. One that is killed can't: `list` notices that. */
  #follow(record: ReaderRecord, pid: number): void {
    const socket = this.socketOf(record.id);
    const watcher = watch(this.#directoryOf(record.id), (_kind, name) => {
      if (name === basename(socket)) void this.#forgetWhenGone(record.id, socket);
    });
    watcher.on('error', (error) =>
      this.#log.warn({ err: error, reader: record.id }, 'a reader is not watched'),
    );
    this.#live.set(record.id, { record, pid, unwatch: () => watcher.close() });
  }

  async #forgetWhenGone(id: string, socket: string): Promise<void> {
    try {
      if (
        await access(socket).then(
          () => true,
          () => false,
        )
      )
        return;
      await this.discard(id); // it is about to end: its files are closed when this returns
    } catch (error) {
      this.#log.error({ err: error, reader: id }, 'the end of a reader could not be settled');
    }
  }

  async #forget(id: string): Promise<void> {
    const live = this.#live.get(id);
    this.claimed(id);
    live?.unwatch();
    this.#live.delete(id);
    await removeShared(this.#directoryOf(id));
    if (live !== undefined) this.#events.emit('ended', live.record);
  }

  #directoryOf(id: string): string {
    return join(this.#directory, id.slice(0, 12));
  }
}

/** A daemon that died in the middle may have left half of one: then nobody was served yet. */
async function recordIn(directory: string): Promise<ReaderRecord | undefined> {
  const json = await readOwnFile(join(directory, RECORD));
  return json === undefined ? undefined : readReaderRecord(json);
}

/** @returns undefined for what is no record, or not all of one */
export function readReaderRecord(json: string): ReaderRecord | undefined {
  try {
    const record: unknown = JSON.parse(json);
    return Value.Check(ReaderRecord, record) ? record : undefined;
  } catch {
    return undefined;
  }
}

function nothingThere(error: unknown): never[] {
  if (errnoOf(error) === 'ENOENT') return [];
  throw error;
}
