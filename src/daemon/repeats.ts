/**
 * A request that is sent again, since its answer was lost, begins nothing again. It brings the key that it had the first time
 * (`Idempotency-Key`, as in draft-ietf-httpapi-idempotency-key-header), which is recorded with the operation that it began: so
 * the next daemon knows it too. What is refused begins nothing, and the same key may try again.
 */
import { hash } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import type { FastifyRequest } from 'fastify';
import type { CatalogDatabase } from '../catalog/database.ts';
import { findRequested, type OperationRecord } from '../catalog/operations.ts';
import { StasisError } from '../errors.ts';
import type { RequestTag } from '../operations/operation.ts';
import { callerOf } from './caller.ts';

export const KEY_HEADER = 'idempotency-key';
export class Repeats {
  readonly #catalog: CatalogDatabase;
  /** what is being planned just now, by key: not recorded yet, but begun */
  readonly #begun = new Map<string, PromiseWithResolvers<void>>();
  readonly #found = new WeakMap<IncomingMessage, OperationRecord>();

  constructor(catalog: CatalogDatabase) {
    this.#catalog = catalog;
  }

  /** Is this a request that has begun an operation before? */
  async isRepeat(request: FastifyRequest): Promise<boolean> {
    const key = await keyOf(request);
    return key !== undefined && (await this.#find(request, key)) !== undefined;
  }

  /** What an operation that this request begins is recorded with; nothing for one without a key. */
  async tagOf(request: FastifyRequest): Promise<RequestTag | undefined> {
    const key = await keyOf(request);
    return key === undefined ? undefined : { key, hash: hashOf(request) };
  }

  /** The operation of a request is in the catalog: who waits for it finds it there. */
  isRecorded({ key }: RequestTag): void {
    this.#begun.get(key)?.resolve();
    this.#begun.delete(key);
  }

  /**
   * Begins something, unless the same request has.
   *
   * @returns what `begin` does, or what `repeat` does with the operation there is
   * @throws StasisError `idempotency-conflict` when it was another request that had this key
   */
  async once<T>(
    request: FastifyRequest,
    begin: () => Promise<T>,
    repeat: (operation: OperationRecord) => Promise<T>,
  ): Promise<T> {
    const tag = await this.tagOf(request);
    if (tag === undefined) return begin();
    for (let other; (other = this.#begun.get(tag.key)) !== undefined;) await other.promise;
    const mine = Promise.withResolvers<void>();
    this.#begun.set(tag.key, mine);
    try {
      const operation = await this.#find(request, tag.key);
      if (operation === undefined) return await begin();
      this.isRecorded(tag);
      if (operation.requestHash !== tag.hash) throw conflict(operation);
      return await repeat(operation);
    } finally {
      if (this.#begun.get(tag.key) === mine) this.isRecorded(tag);
    }
  }

  /** Asked once per request if there is one: whoever was let in for it gets nothing else. */
  async #find({ raw }: FastifyRequest, key: string): Promise<OperationRecord | undefined> {
    const found = this.#found.get(raw) ?? (await findRequested(this.#catalog, key));
    if (found !== undefined) this.#found.set(raw, found);
    return found;
  }
}

/** Keys are the caller's own: another's are other keys. */
async function keyOf({ raw }: FastifyRequest): Promise<string | undefined> {
  const key = raw.headers[KEY_HEADER];
  if (typeof key !== 'string') return undefined;
  const { credential, uid } = await callerOf(raw);
  return `${credential === null ? `uid ${uid}` : `credential ${credential}`}: ${key}`;
}

function hashOf({ method, url, body }: FastifyRequest): string {
  return hash('sha256', JSON.stringify([method, url, body ?? null]), 'hex');
}

function conflict({ id, kind, guestName }: OperationRecord): StasisError {
  return new StasisError(
    'idempotency-conflict',
    `this idempotency key came with another request, which began operation ${id} (${kind} ${guestName}): each takes a key of its own`,
    { guest: guestName, details: { operation: id } },
  );
}
