/** Events as they happen, each exactly once, also across restarts of the daemon. */
import type { AuditEntry, Event, Operation } from '../api/schemas.ts';
import { StasisError } from '../errors.ts';
import { send, type Exchange, type Transport } from './exchange.ts';
import { Reconnection, type Revive } from './reconnection.ts';
import { readSse } from './sse.ts';
import { parseWire } from './wire.ts';

/** Which events are told. */
export interface EventFilter {
  readonly guest?: string | undefined;
  /** only events with a greater id; 0: whatever the daemon still has; without it only what is still to come */
  readonly since?: number | undefined;
}

/**
 * Follows the daemon's events until the loop is left or the signal aborted.
 *
 * @throws `daemon-unreachable` when it isn't there, or doesn't come back; the signal's reason
 */
export async function* followEvents(
  transport: Transport,
  filter: EventFilter,
  options: FollowOptions,
): AsyncGenerator<Event, void, undefined> {
  const { guest, since } = filter;
  yield* follow<Event>(
    transport,
    { path: '/v1/events', kind: 'event', cursor: 'since', guest },
    since,
    options,
  );
}

/** Which entries of the audit trail are told. */
export interface AuditFilter {
  readonly guest?: string | undefined;
  /** only entries with a greater id; without it only what is still to come */
  readonly after?: number | undefined;
  /** ISO 8601, UTC */
  readonly since?: string | undefined;
}

/** Follows the daemon's audit trail as `followEvents` does its events. */
export async function* followAudit(
  transport: Transport,
  { guest, since, after }: AuditFilter,
  options: FollowOptions,
): AsyncGenerator<AuditEntry, void, undefined> {
  const path = `/v1/audit`;
  yield* follow<AuditEntry>(
    transport,
    { path, kind: 'audit', cursor: 'after', guest, since },
    after,
    options,
  );
}

interface FollowOptions {
  readonly revive?: Revive | undefined;
  readonly signal?: AbortSignal | undefined;
}

interface Followed {
  readonly path: string;
  /** the name of its messages in the stream */
  readonly kind: string;
  /** how the query calls the id from which on it is told */
  readonly cursor: 'since' | 'after';
  readonly guest: string | undefined;
  readonly since?: string | undefined;
}

async function* follow<T extends { readonly id: number }>(
  transport: Transport,
  { path, kind, cursor, guest, since }: Followed,
  after: number | undefined,
  options: FollowOptions,
): AsyncGenerator<T, void, undefined> {
  const reconnection = new Reconnection(options.revive, options.signal);
  let connected = false;
  let last = after;
  for (;;) {
    try {
      const exchange: Exchange = {
        method: 'GET',
        path: `${path}${queryOf({ guest, ...(since === undefined ? {} : { since }), [cursor]: last })}`,
        headers: { accept: 'text/event-stream' },
        signal: options.signal,
      };
      const { body } = await send(transport, exchange);
      connected = true;
      for await (const message of readSse(body)) {
        reconnection.succeeded();
        if (message.event !== kind) continue;
        const event = parseWire<T>(message.data);
        if (event.id > 0) {
          if (last !== undefined && event.id <= last) continue; // told before the break
          last = event.id;
        }
        yield event;
      }
      throw new StasisError('daemon-unreachable', `the daemon ended the stream of ${path}`);
    } catch (error) {
      if (!connected) throw error;
      await reconnection.after(error);
    }
  }
}

/** What a stream with operations tells: an event, or an operation that goes on. */
export type News =
  | { readonly kind: 'event'; readonly event: Event }
  | { readonly kind: 'operation'; readonly operation: Operation };

/**
 * Events after `since` and every change of a running operation, over one connection, until that ends: whoever watches
 * has to look at the whole again after a break.
 *
 * @throws `daemon-unreachable` when it isn't there or the stream ended; the signal's reason
 */
export async function* watch(
  transport: Transport,
  since: number,
  signal: AbortSignal | undefined,
): AsyncGenerator<News, void, undefined> {
  const { body } = await send(transport, {
    method: 'GET',
    path: `/v1/events${queryOf({ since, operations: true })}`,
    headers: { accept: 'text/event-stream' },
    signal,
  });
  for await (const { event: kind, data } of readSse(body)) {
    if (kind === 'event') yield { kind, event: parseWire<Event>(data) };
    if (kind === 'operation') yield { kind, operation: parseWire<Operation>(data) };
  }
  throw new StasisError('daemon-unreachable', 'the daemon ended the stream of events');
}

/** `?a=1&b=2` of what is given, or nothing. */
export function queryOf(parameters: Readonly<Record<string, string | number | boolean | undefined>>): string {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters))
    if (value !== undefined) query.set(name, String(value));
  return query.size === 0 ? '' : `?${query.toString()}`;
}
