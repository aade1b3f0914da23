/** What somebody may know of: guests that they don't see are not there for them, nor is what happens to those. */
import { sees } from '../access/principal.ts';
import type { Principal } from '../api/remote.ts';
import { findGuest, listGuests, type GuestRecord } from '../catalog/guests.ts';
import type { CatalogDatabase } from '../catalog/database.ts';
import type { OperationRecord } from '../catalog/operations.ts';
import { storedDefinition } from '../guests/definition.ts';
import { fromStored } from '../stored.ts';
import type { Caller } from './caller.ts';

export class Sight {
  readonly #catalog: CatalogDatabase;
  readonly #principal: Principal;

  constructor(catalog: CatalogDatabase, principal: Principal) {
    this.#catalog = catalog;
    this.#principal = principal;
  }

  /** All guests, and the host with them. */
  get isWhole(): boolean {
    return this.#principal.labels === null;
  }

  /** All that are there for them, in order of their names. */
  async guests(): Promise<GuestRecord[]> {
    return (await listGuests(this.#catalog)).filter((guest) => this.of(guest));
  }

  of(guest: GuestRecord): boolean {
    return this.isWhole || sees(this.#principal, storedDefinition(guest));
  }

  /** @param guest name or UUID; null: what is about no guest */
  async ofName(guest: string | null): Promise<boolean> {
    if (this.isWhole) return true;
    const record = guest === null ? undefined : await findGuest(this.#catalog, guest);
    return record !== undefined && this.of(record);
  }

  /** What is done to a guest that they see, or to none yet, if they began it. */
  async ofOperation({ guest, guestName, caller }: OperationRecord): Promise<boolean> {
    return (await this.ofName(guest ?? guestName)) || (guest === null && this.#isOwn(caller));
  }

  #isOwn(caller: string | null): boolean {
    if (caller === null) return false;
    const { credential, user } = fromStored<Partial<Caller>>(caller);
    return (credential ?? user) === this.#principal.name;
  }
}

/**
 * Tells what is seen in the order in which it came, though it takes a while to know whether it is.
 * @param fail when that can't be known any more
 */
export function inOrder(
  sight: Sight,
  fail: (error: unknown) => void,
): (isSeen: () => Promise<boolean>, tell: () => void) => void {
  let last = Promise.resolve();
  const after = async (before: Promise<void>, isSeen: () => Promise<boolean>, tell: () => void) => {
    await before;
    if (await isSeen()) tell();
  };
  return (isSeen, tell) => {
    if (sight.isWhole) tell();
    else last = after(last, isSeen, tell).catch(fail);
  };
}

/** Those of a list for which that holds, in its order. */
export async function seen<T>(items: readonly T[], isSeen: (item: T) => Promise<boolean>): Promise<T[]> {
  const marks = await Promise.all(items.map(isSeen));
  return items.filter((_item, index) => marks[index]);
}
