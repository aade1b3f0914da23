/**
 * Checksums of what images hold, made when nothing has been done to their guest for a while: of the memory file and the layers of a new
 * image, and of layers that were merged since. It gives way to any operation on any guest, within milliseconds, and goes on where it
 * was when the last of them has ended. Off the way of everything else: nobody waits for it, and `verify` makes what is missing.
 */
import { hasGuest, listGuests } from '../catalog/guests.ts';
import { listImages } from '../catalog/images.ts';
import { StasisError, messageOf } from '../errors.ts';
import type { Host } from '../guests/host.ts';
import {
  filesOf,
  isFixed,
  recordedSum,
  recordSum,
  refreshManifest,
  type ImageFile,
} from '../images/image-files.ts';
import type { OperationEngine } from '../operations/engine.ts';
import type { LiveOperation } from '../operations/operation.ts';
import { sumFile } from '../storage/file-sum-process.ts';
import type { SumBuilder } from '../storage/file-sum.ts';
import type { Settings } from './settings.ts';

/** These read images themselves. */
const NOT_IN_THE_WAY: readonly string[] = ['verify', 'export'];

/** What was begun of a file and then gave way. */
interface Begun {
  readonly owner: string;
  readonly seal: string | null;
  readonly sum: SumBuilder;
}

export class BackgroundSums implements AsyncDisposable {
  readonly #host: Host;
  readonly #engine: OperationEngine;
  readonly #bytesPerSecond: number;
  readonly #afterMs: number;
  readonly #timers = new Map<string, NodeJS.Timeout>();
  readonly #due = new Set<string>();
  readonly #end = new AbortController();
  readonly #unlisten: () => void;
  /** aborted when something else is to be done */
  #turn = new AbortController();
  #working: Promise<void> = Promise.resolve();
  #isWorking = false;
  #begun: Begun | undefined;

  constructor(
    host: Host,
    engine: OperationEngine,
    { checksums }: { checksums: NonNullable<Settings['checksums']> },
  ) {
    this.#host = host;
    this.#engine = engine;
    this.#bytesPerSecond = checksums.bytesPerSecond;
    this.#afterMs = checksums.afterSeconds * 1000;
    this.#unlisten = engine.listenToAll((operation) => isInTheWay(operation) && this.#turn.abort());
    engine.onEnded(({ guest, kind }) => {
      if (guest !== null && kind !== 'verify') this.#later(guest);
      this.#goOn();
    });
    void this.#lookAtAll();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#end.abort();
    this.#turn.abort();
    this.#unlisten();
    for (const timer of this.#timers.values()) clearTimeout(timer);
    await this.#working;
  }

  /** What a former daemon left undone. */
  async #lookAtAll(): Promise<void> {
    try {
      for (const { uuid } of await listGuests(this.#host.catalog)) this.#later(uuid);
    } catch (error) {
      this.#host.log.warn({ error: messageOf(error) }, 'images could not be looked at for checksums');
    }
  }

  #later(guest: string): void {
    if (this.#end.signal.aborted) return;
    clearTimeout(this.#timers.get(guest));
    const isDue = () => {
      this.#timers.delete(guest);
      this.#due.add(guest);
      this.#goOn();
    };
    this.#timers.set(guest, setTimeout(isDue, this.#afterMs).unref());
  }

  #goOn(): void {
    if (this.#isWorking || this.#end.signal.aborted || this.#engine.running().some(isInTheWay)) return;
    this.#isWorking = true;
    this.#turn = new AbortController();
    this.#working = this.#work(this.#turn.signal).finally(() => {
      this.#isWorking = false;
      // Something may have begun and ended while this was giving way.
      if (this.#due.size > 0) this.#goOn();
    });
  }

  /** Never rejects. */
  async #work(signal: AbortSignal): Promise<void> {
    for (const guest of this.#due) {
      try {
        await this.#sumGuest(guest, signal);
        this.#due.delete(guest);
      } catch (error) {
        if (signal.aborted) return;
        this.#due.delete(guest);
        const { code, message } = StasisError.from(error);
        this.#host.log.warn({ guest, code }, `checksums could not be made: ${message}`);
      }
    }
  }

  async #sumGuest(guest: string, signal: AbortSignal): Promise<void> {
    const { catalog } = this.#host;
    if (!(await hasGuest(catalog, guest))) return;
    for (const image of await listImages(catalog, guest)) {
      // What counts no more is gone from the manifest before anything new is read.
      await refreshManifest(this.#host, image.id);
      if (image.state !== 'ready') continue;
      for (const file of await filesOf(this.#host, image)) {
        signal.throwIfAborted();
        if (isFixed(file) && (await recordedSum(this.#host, file)) === undefined)
          await this.#sum(file, signal);
      }
      await refreshManifest(this.#host, image.id);
    }
  }

  async #sum(file: ImageFile, signal: AbortSignal): Promise<void> {
    const owner = JSON.stringify(file.owner);
    const { seal } = file;
    const isSame = this.#begun?.owner === owner && this.#begun.seal === seal;
    const sum = await sumFile(file.path, {
      signal,
      bytesPerSecond: this.#bytesPerSecond,
      begun: isSame ? this.#begun?.sum : undefined,
      onBegun: (begun) => void (this.#begun = { owner, seal, sum: begun }),
    });
    this.#begun = undefined;
    await recordSum(this.#host, file, sum);
  }
}

function isInTheWay({ record }: LiveOperation): boolean {
  return record.state === 'running' && !NOT_IN_THE_WAY.includes(record.kind);
}
