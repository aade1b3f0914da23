/** What happened, kept in the catalog and told to whoever listens. Progress is told, not kept. */
import { EventEmitter } from 'node:events';
import type { CatalogDatabase } from '../catalog/database.ts';
import { insertEvent, trimEvents, type EventRecord } from '../catalog/events.ts';

export interface EventInput {
  readonly type: EventRecord['type'];
  readonly action: string;
  readonly guest?: string | null;
  readonly image?: string | null;
  readonly operation?: string | null;
  readonly message: string;
}

const TRIM_EVERY = 500;

export class EventLog {
  readonly #catalog: CatalogDatabase;
  readonly #emitter = new EventEmitter<{ event: [EventRecord] }>().setMaxListeners(0);
  #sinceTrim = 0;

  constructor(catalog: CatalogDatabase) {
    this.#catalog = catalog;
  }

  async publish(input: EventInput): Promise<void> {
    const event = await insertEvent(this.#catalog, {
      at: new Date().toISOString(),
      type: input.type,
      action: input.action,
      guest: input.guest ?? null,
      image: input.image ?? null,
      operation: input.operation ?? null,
      message: input.message,
    });
    this.#emitter.emit('event', event);
    this.#sinceTrim += 1;
    if (this.#sinceTrim >= TRIM_EVERY) {
      this.#sinceTrim = 0;
      await trimEvents(this.#catalog);
    }
  }

  /** @returns how to stop listening */
  listen(listener: (event: EventRecord) => void): () => void {
    this.#emitter.on('event', listener);
    return () => this.#emitter.off('event', listener);
  }
}
