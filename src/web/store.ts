/**
 * What the page knows: one request for what it shows, one event stream that keeps it true. After a break of the stream
 * all is asked for again.
 */
import { computed, effect, signal } from '@preact/signals';
import { PageClient } from '../client/page-client.ts';
import type { AuditEntry, Event, Guest, GuestOverview, HostOverview, Operation } from '../api/schemas.ts';
import { includesRole } from '../access/principal.ts';
import { PAGE_HEADER, type Role } from '../api/constants.ts';
import type { Principal } from '../api/remote.ts';
import { StasisError, type ErrorBody } from '../errors.ts';
import type { News } from '../client/event-stream.ts';
import { route, type Route } from './router.ts';

export const client = new PageClient(location.origin + location.pathname);

export type Connection = 'connecting' | 'live' | 'lost' | 'no-session';
export const connection = signal<Connection>('connecting');
/** who looks at the page; known with the first that is shown */
export const principal = signal<Principal | undefined>(undefined);
/** there was a session, which has ended: by its time, or since its token is no longer good */
export const hasEnded = signal(false);

export const guests = signal<readonly Guest[] | undefined>(undefined);
export const guestShown = signal<GuestOverview | undefined>(undefined);
export const host = signal<HostOverview | undefined>(undefined);
export const events = signal<readonly Event[] | undefined>(undefined);
/** null: it is not for who looks at the page */
export const audit = signal<readonly AuditEntry[] | null>(null);
/** why the present page could not be had */
export const failure = signal<ErrorBody | undefined>(undefined);
const operations = signal<ReadonlyMap<string, Operation>>(new Map());

/** Operations under way, by guest. */
export const running = computed(() => {
  const found = [...operations.value.values()].filter(({ state }) => state === 'running');
  return new Map(found.map((operation) => [operation.guest, operation]));
});

/** What this page tells of what it was asked to do. */
export interface Notice {
  readonly id: number;
  readonly kind: 'done' | 'failed';
  readonly text: string;
}
export const notices = signal<readonly Notice[]>([]);
let lastNotice = 0;
const DONE_NOTICE_MS = 6_000;

const EVENTS_SHOWN = 200;
const RELOAD_AFTER_MS = 120;
const RECONNECT_AFTER_MS = 1_000;

/** Trades the secret in the address for a session cookie, and takes it out of the address and the history. */
export async function tradeLink(): Promise<void> {
  const secret = /^#secret=([\w-]+)$/.exec(location.hash)?.[1];
  if (secret === undefined) return;
  history.replaceState(null, '', location.pathname);
  // Whether it was good shows in the first request: a browser that has a session already needs none.
  await fetch('session', { method: 'POST', body: secret, headers: { [PAGE_HEADER]: '1' } }).catch(
    () => undefined,
  );
}

/**
 * Trades a token for a session, and goes on.
 * @throws StasisError `unauthorized`, `too-many-requests`, `daemon-unreachable`
 */
export async function logIn(token: string): Promise<void> {
  await client.beginSession(token);
  hasEnded.value = false;
  connection.value = 'connecting';
  void follow();
}

/** Ends the session. The page begins anew: nothing of what it showed is left. */
export async function logOut(): Promise<void> {
  await client.endSession();
  location.reload();
}

/** Whether who looks at the page may do what needs that role. */
export function may(role: Role): boolean {
  return principal.value !== undefined && includesRole(principal.value.role, role);
}

/** Loads what the address names, and again whenever that changes, and listens. Runs as long as the page. */
export function followDaemon(): void {
  let first = true;
  effect(() => {
    const { value } = route;
    if (first) void follow();
    else void goTo(value);
    first = false;
  });
}

let following = new AbortController();

async function follow(): Promise<void> {
  following = new AbortController();
  const { signal: left } = following;
  for (;;) {
    try {
      const since = await load(route.peek());
      connection.value = 'live';
      for await (const news of client.watch(since, { signal: left })) apply(news);
    } catch (error) {
      if (left.aborted) return;
      const explained = StasisError.from(error);
      if (isShutOut(explained)) {
        shutOut();
        return;
      }
      connection.value = 'lost';
    }
    await new Promise((resolve) => setTimeout(resolve, RECONNECT_AFTER_MS));
  }
}

async function goTo(wanted: Route): Promise<void> {
  failure.value = undefined;
  await reload(wanted);
}

/** Shows a page that is gone to. Errors are shown where the page would be. */
async function reload(wanted: Route): Promise<void> {
  try {
    await load(wanted);
  } catch (error) {
    if (isShutOut(StasisError.from(error))) shutOut();
  }
}

function isShutOut({ code }: StasisError): boolean {
  return code === 'unauthorized' || code === 'too-many-requests';
}

/** What was shown to somebody is not there for whoever logs in next. */
function shutOut(): void {
  connection.value = 'no-session';
  hasEnded.value ||= principal.value !== undefined;
  following.abort();
  for (const shown of [guests, guestShown, host, events, principal, failure]) shown.value = undefined;
  audit.value = null;
  operations.value = new Map();
}

/**
 * One request for a page.
 * @returns the event to follow from
 * @throws StasisError `daemon-unreachable`, `unauthorized`; others are shown
 */
async function load(wanted: Route): Promise<number> {
  try {
    const since = await loadPage(wanted);
    if (isShown(wanted)) failure.value = undefined;
    return since;
  } catch (error) {
    const explained = StasisError.from(error);
    if (isShutOut(explained) || explained.code === 'daemon-unreachable') throw explained;
    if (isShown(wanted)) failure.value = explained.toJSON();
    return seen(await client.overview());
  }
}

async function loadPage(wanted: Route): Promise<number> {
  switch (wanted.page) {
    case 'guests': {
      const overview = await client.overview();
      guests.value = overview.guests;
      remember(overview.operations);
      return seen(overview);
    }
    case 'guest': {
      if (guestShown.peek()?.guest.name !== wanted.guest) guestShown.value = undefined;
      const overview = await client.guestOverview(wanted.guest);
      if (isShown(wanted)) guestShown.value = overview;
      remember(overview.operations);
      return seen(overview);
    }
    case 'host': {
      const overview = await client.hostOverview();
      host.value = overview;
      return seen(overview);
    }
    case 'events': {
      const overview = await client.eventsOverview();
      events.value = overview.events.toReversed();
      audit.value = overview.audit?.toReversed() ?? null;
      return seen(overview);
    }
    default:
      return wanted satisfies never;
  }
}

function seen(overview: { readonly lastEvent: number; readonly principal: Principal }): number {
  principal.value = overview.principal;
  return overview.lastEvent;
}

function isShown(wanted: Route): boolean {
  const shown = route.peek();
  if (shown.page !== wanted.page) return false;
  return shown.page !== 'guest' || wanted.page !== 'guest' || shown.guest === wanted.guest;
}

/** What has ended doesn't go on: an answer may have been made before the stream told of that end, and come after it. */
function remember(found: readonly Operation[]): void {
  const known = operations.peek();
  const news = found.filter(
    ({ id, state }) => state !== 'running' || (known.get(id)?.state ?? 'running') === 'running',
  );
  operations.value = new Map([...known, ...news.map((one) => [one.id, one] as const)]);
  news.forEach(tellEnd);
}

/** Its end was told before the stream began to tell of operations; what became of it the page reads anew. */
function forgetEnded({ type, action, operation }: Event): void {
  if (type !== 'operation' || action === 'running' || operation === null) return;
  if (operations.peek().get(operation)?.state !== 'running') return;
  operations.value = new Map([...operations.peek()].filter(([id]) => id !== operation));
}

function apply(news: News): void {
  if (news.kind === 'operation') {
    remember([news.operation]);
    if (news.operation.state !== 'running') refreshSoon(news.operation.guest);
    return;
  }
  const { event } = news;
  if (events.value !== undefined) events.value = [event, ...events.value].slice(0, EVENTS_SHOWN);
  forgetEnded(event);
  if (event.guest !== null) refreshSoon(event.guest);
}

// What changed is read again, once for many changes -------------------------------------------------------------------

const changed = new Set<string>();
let refreshing: ReturnType<typeof setTimeout> | undefined;

function refreshSoon(guest: string): void {
  changed.add(guest);
  refreshing ??= setTimeout(() => void refresh(), RELOAD_AFTER_MS);
}

async function refresh(): Promise<void> {
  const shown = route.peek();
  const names = [...changed];
  changed.clear();
  if (
    shown.page === 'guests' ||
    shown.page === 'events' ||
    (shown.page === 'guest' && names.includes(shown.guest))
  )
    await reload(shown);
  // One at a time: what changed meanwhile is read after that.
  refreshing = changed.size === 0 ? undefined : setTimeout(() => void refresh(), RELOAD_AFTER_MS);
}

// What is asked for ----------------------------------------------------------------------------------------------------

/** Operations that this page began, and what is said when they are done. */
const begun = new Map<string, string>();

/**
 * Begins an operation; its end is told in a notice.
 * @throws StasisError the daemon's refusal: for the form it was asked from
 */
export async function begin(done: string, request: Promise<Operation>): Promise<void> {
  const operation = await request;
  begun.set(operation.id, done);
  // Its end may have been told before its beginning was answered.
  remember([operation]);
  tellEnd(operations.value.get(operation.id) ?? operation);
}

function tellEnd(operation: Operation): void {
  const done = begun.get(operation.id);
  if (done === undefined || operation.state === 'running') return;
  begun.delete(operation.id);
  if (operation.state === 'done') notify('done', [done, ...operation.warnings].join(' · '));
  else
    notify(
      'failed',
      operation.error?.message ?? `${operation.kind} of ${operation.guest}: ${operation.state}`,
    );
}

export function notify(kind: Notice['kind'], text: string): void {
  const id = (lastNotice += 1);
  notices.value = [...notices.value, { id, kind, text }];
  if (kind === 'done') setTimeout(() => dismiss(id), DONE_NOTICE_MS);
}

export function dismiss(id: number): void {
  notices.value = notices.value.filter((notice) => notice.id !== id);
}
