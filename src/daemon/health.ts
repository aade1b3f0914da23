/** Whether the daemon lives, and whether it can do its work. It listens only when recovery is over. */
import { statfs } from 'node:fs/promises';
import { sql } from 'kysely';
import type { Readiness } from '../api/schemas.ts';
import { reserveRoom } from '../catalog/reserve.ts';
import { countUnsettled } from '../catalog/statistics.ts';
import { messageOf } from '../errors.ts';
import type { Host } from '../guests/host.ts';
import { catalogFile } from '../paths.ts';
import type { OperationEngine } from '../operations/engine.ts';
import { waitFor } from '../qemu/wait.ts';

/** A file system that hangs must not make the question hang. */
const PATIENCE_MS = 5_000;
/** Who asks again within that is told the same: to try a write is one, which the disk is waited for. */
const HOLDS_MS = 1_000;

export class Health {
  readonly #host: Host;
  readonly #engine: OperationEngine;
  readonly #minFreeBytes: number;
  #last: { readonly askedAtMs: number; readonly readiness: Promise<Readiness> } | undefined;

  /** @param minFreeBytes with less free space in the home it is not ready */
  constructor(host: Host, engine: OperationEngine, minFreeBytes: number) {
    this.#host = host;
    this.#engine = engine;
    this.#minFreeBytes = minFreeBytes;
  }

  /** Resolves when the catalog answered; that it does says that the event loop goes round. @throws StasisError `timeout`, or why not */
  async alive(): Promise<void> {
    await this.#answered('the catalog', sql`select 1`.execute(this.#host.catalog));
  }

  /** Can a save be begun now, as far as that is the daemon's and its home's doing? As it was a second ago, at most. Never fails. */
  readiness(): Promise<Readiness> {
    const askedAtMs = performance.now();
    if (this.#last === undefined || askedAtMs - this.#last.askedAtMs > HOLDS_MS)
      this.#last = { askedAtMs, readiness: this.#examine() };
    return this.#last.readiness;
  }

  async #examine(): Promise<Readiness> {
    const reasons = await told([this.#whyNotWritable(), this.#whyNoSpace()]);
    const remarks = await told([this.#unsettled(), this.#reserve()]);
    return { ready: reasons.length === 0, reasons, remarks };
  }

  async #whyNotWritable(): Promise<string | null> {
    try {
      const row = { id: 1, at: new Date().toISOString() };
      const write = this.#host.catalog
        .insertInto('writeTrial')
        .values(row)
        .onConflict((conflict) => conflict.column('id').doUpdateSet({ at: row.at }));
      await this.#answered('a write to the catalog', write.execute());
      return null;
    } catch (error) {
      return `the catalog can't be written: ${messageOf(error)}`;
    }
  }

  async #whyNoSpace(): Promise<string | null> {
    const { data } = this.#host.paths;
    try {
      const { bavail, bsize } = await this.#answered(`the file system of ${data}`, statfs(data));
      const freeBytes = bavail * bsize;
      if (freeBytes >= this.#minFreeBytes) return null;
      return `${data} has ${mib(freeBytes)} MiB free, less than ${mib(this.#minFreeBytes)} (minFree in stasis.yaml)`;
    } catch (error) {
      return `the space left is not known: ${messageOf(error)}`;
    }
  }

  /** One guest's trouble: the others can be saved. */
  async #unsettled(): Promise<string | null> {
    try {
      const unsettled = await this.#answered('the catalog', countUnsettled(this.#host.catalog));
      const left = unsettled - this.#engine.running().length;
      if (left <= 0) return null;
      return `operations that could be neither finished nor undone yet: ${left}; see \`stasis ops\``;
    } catch {
      return null; // the catalog's trouble is told already
    }
  }

  /** Whoever looks sees to it that it is whole again. */
  async #reserve(): Promise<string | null> {
    try {
      const missing = await this.#answered('the reserve', reserveRoom(catalogFile(this.#host.paths)));
      if (missing === 0) return null;
      return `of the room that is kept for stopping guests and deleting images on a full disk ${mib(missing)} MiB are missing`;
    } catch (error) {
      return `room for stopping guests and deleting images on a full disk can't be kept: ${messageOf(error)}`;
    }
  }

  #answered<T>(what: string, answer: Promise<T>): Promise<T> {
    return waitFor(what, answer, { timeoutMs: PATIENCE_MS });
  }
}

async function told(findings: readonly Promise<string | null>[]): Promise<string[]> {
  return (await Promise.all(findings)).filter((finding) => finding !== null);
}

function mib(bytes: number): string {
  return (bytes / 1024 ** 2).toFixed(0);
}
