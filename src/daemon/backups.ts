/**
 * Backups of the catalog, made while the daemon goes on: once a day by itself, and when somebody asks. They have what the
 * records beside the images have not: operations, events, the audit trail, credentials. The newest few are kept.
 */
import { chmod, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { CatalogBackup } from '../api/schemas.ts';
import { copyCatalog } from '../catalog/database.ts';
import { namesIn } from '../directory.ts';
import { StasisError, messageOf } from '../errors.ts';
import type { Host } from '../guests/host.ts';
import type { OperationEngine } from '../operations/engine.ts';
import { makeDirectory, syncFile } from '../storage/durable.ts';

const KEPT = 5;
const DAY_MS = 24 * 3_600_000;
/** Nothing announces that a day is over and nobody busy. */
const LOOK_EVERY_MS = 10 * 60_000;

const NAME = /^catalog-(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)(\d{3})Z\.sqlite$/;

export class Backups implements AsyncDisposable {
  readonly #host: Host;
  readonly #directory: string;
  readonly #timer: NodeJS.Timeout;
  /** one at a time; never rejects */
  #last: Promise<void> = Promise.resolve();

  constructor(host: Host, engine: OperationEngine) {
    this.#host = host;
    this.#directory = join(host.paths.data, 'backups');
    // It holds up whoever wants the catalog meanwhile: nobody, when nothing is under way.
    this.#timer = setInterval(() => void (engine.isIdle && this.#takeDaily()), LOOK_EVERY_MS).unref();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer);
    await this.#last;
  }

  /** @throws StasisError `no-space`, `storage-failed` */
  take(): Promise<CatalogBackup> {
    const taken = this.#last.then(() => this.#take());
    this.#last = taken.then(
      () => undefined,
      () => undefined, // told to who asked
    );
    return taken;
  }

  /** The path of one by its name. @throws StasisError `not-found` */
  async find(name: string): Promise<string> {
    if ((await this.#names()).includes(name)) return join(this.#directory, name);
    throw new StasisError('not-found', `there is no backup ${name} of the catalog any more`);
  }

  async #take(): Promise<CatalogBackup> {
    const createdAt = new Date().toISOString();
    const name = `catalog-${createdAt.replaceAll(/[-:.]/g, '')}.sqlite`;
    const path = join(this.#directory, name);
    const draft = `${path}.draft`;
    await makeDirectory(this.#directory);
    try {
      await copyCatalog(this.#host.catalog, draft);
      await chmod(draft, 0o600);
      await rename(draft, path);
    } finally {
      await rm(draft, { force: true });
    }
    await syncFile(path);
    for (const old of (await this.#names()).slice(0, -KEPT)) await rm(join(this.#directory, old));
    return { name, path, createdAt, sizeBytes: (await stat(path)).size };
  }

  /** Never rejects: it is its own owner. */
  async #takeDaily(): Promise<void> {
    try {
      const newest = timeOf((await this.#names()).at(-1) ?? '');
      if (Date.now() - newest >= DAY_MS) await this.take();
    } catch (error) {
      this.#host.log.error({ error: messageOf(error) }, 'the catalog could not be backed up');
    }
  }

  /** Oldest first. */
  async #names(): Promise<string[]> {
    return (await namesIn(this.#directory)).filter((name) => NAME.test(name)).toSorted();
  }
}

function timeOf(name: string): number {
  const [, year, month, day, hour, minute, second, ms] = NAME.exec(name) ?? [];
  return year === undefined ? 0 : Date.parse(`${year}-${month}-${day}T${hour}:${minute}:${second}.${ms}Z`);
}
