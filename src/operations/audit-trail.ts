/** Who did what: kept in the catalog, for whoever has to know it later. */
import { EventEmitter } from 'node:events';
import type { Transaction } from 'kysely';
import { appendAudit, trimAudit, type AuditInput } from '../catalog/audit.ts';
import type { CatalogDatabase } from '../catalog/database.ts';
import type { Tables } from '../catalog/schema.ts';

const TRIM_EVERY = 500;

export class AuditTrail {
  readonly #catalog: CatalogDatabase;
  readonly #emitter = new EventEmitter<{ grown: [] }>().setMaxListeners(0);
  #sinceTrim = 0;

  constructor(catalog: CatalogDatabase) {
    this.#catalog = catalog;
  }

  /** Adds an entry. */
  async append(entry: AuditInput): Promise<void> {
    await this.appendWith(() => Promise.resolve(), entry);
  }

  /** Adds an entry in one transaction with what it is about: both are there or neither. */
  async appendWith(
    work: (transaction: Transaction<Tables>) => Promise<void>,
    entry: AuditInput,
  ): Promise<void> {
    const isFull = this.#sinceTrim >= TRIM_EVERY;
    await this.#catalog.transaction().execute(async (transaction) => {
      await work(transaction);
      await appendAudit(transaction, entry);
      if (isFull) await trimAudit(transaction, entry.at);
    });
    this.#sinceTrim = isFull ? 0 : this.#sinceTrim + 1;
    this.#emitter.emit('grown');
  }

  /** Calls back when there is a new entry. @returns how to stop listening */
  onGrown(listener: () => void): () => void {
    this.#emitter.on('grown', listener);
    return () => this.#emitter.off('grown', listener);
  }
}
