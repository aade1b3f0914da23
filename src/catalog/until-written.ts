/**
 * What was read of the catalog stays true until something of it is written, and the daemon is the only one who writes: who asks in
 * between gets the same again. Not to be used within a transaction, which may yet be rolled back.
 */
import { changesOf, type CatalogDatabase } from './database.ts';

/** @returns the same reader of sums over all, that reads only once between two changes */
export function untilWritten<T>(
  read: (catalog: CatalogDatabase) => Promise<T>,
): (catalog: CatalogDatabase) => Promise<T> {
  const known = new WeakMap<CatalogDatabase, { readonly count: number; readonly value: T }>();
  return async (catalog) => {
    // Before it is read: what is written meanwhile makes it be read again.
    const { count } = changesOf(catalog);
    const last = known.get(catalog);
    if (last?.count === count) return last.value;
    const value = await read(catalog);
    known.set(catalog, { count, value });
    return value;
  };
}

/** What was read for a guest. */
export interface Reading<T> {
  readonly value: T;
  /** ids of trees and of other guests' images: what it tells beside what is the guest's own */
  readonly also: readonly string[];
  /** roughly what it occupies */
  readonly bytes: number;
}

interface Known<T> extends Reading<T> {
  readonly count: number;
  readonly circumstances: string;
}

/** In all, of each kind: what nobody has asked for the longest is read again. */
const KEPT_BYTES = 32 * 1024 ** 2;

/**
 * The same guest by guest.
 * @param read for all of these guests at once, by UUID; those that aren't there are left out
 * @param circumstancesOf what it depends on beside the catalog, in a word: the same as long as that is the same
 */
export function untilGuestWritten<Source extends { readonly catalog: CatalogDatabase }, T>(
  read: (source: Source, guests: readonly string[]) => Promise<Map<string, Reading<T>>>,
  circumstancesOf: (source: Source, guest: string) => string = () => '',
): (source: Source, guests: readonly string[]) => Promise<Map<string, T>> {
  const shelves = new WeakMap<CatalogDatabase, Shelf<T>>();
  return async (source, guests) => {
    const changes = changesOf(source.catalog);
    const shelf = shelves.get(source.catalog) ?? new Shelf<T>();
    shelves.set(source.catalog, shelf);
    const { count } = changes; // before it is read, as above
    const circumstances = new Map(guests.map((guest) => [guest, circumstancesOf(source, guest)]));
    const found = new Map<string, T>();
    for (const guest of guests) {
      const known = shelf.take(guest);
      if (known === undefined || known.circumstances !== circumstances.get(guest)) continue;
      if (!changes.haveTouched([guest, ...known.also], known.count)) found.set(guest, known.value);
    }
    const missing = guests.filter((guest) => !found.has(guest));
    if (missing.length === 0) return found;
    for (const [guest, reading] of await read(source, missing)) {
      shelf.put(guest, { ...reading, count, circumstances: circumstances.get(guest) ?? '' });
      found.set(guest, reading.value);
    }
    return found;
  };
}

/** What was used last comes last. */
class Shelf<T> {
  readonly #known = new Map<string, Known<T>>();
  #bytes = 0;

  take(guest: string): Known<T> | undefined {
    const known = this.#known.get(guest);
    if (known === undefined) return undefined;
    this.#known.delete(guest);
    this.#known.set(guest, known);
    return known;
  }

  put(guest: string, known: Known<T>): void {
    this.#remove(guest);
    this.#known.set(guest, known);
    this.#bytes += known.bytes;
    for (const [oldest] of this.#known) {
      if (this.#bytes <= KEPT_BYTES) return;
      this.#remove(oldest);
    }
  }

  #remove(guest: string): void {
    this.#bytes -= this.#known.get(guest)?.bytes ?? 0;
    this.#known.delete(guest);
  }
}
