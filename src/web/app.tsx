/** The frame: navigation, the page, and what is told in passing. */
import { useEffect } from 'preact/hooks';
import { Failure } from './common.tsx';
import { DialogHost } from './dialog.tsx';
import { EventsView } from './events-view.tsx';
import { GuestView } from './guest-view.tsx';
import { GuestsView } from './guests-view.tsx';
import { HostView } from './host-view.tsx';
import { LoginView } from './login-view.tsx';
import { route, type Route } from './router.ts';
import { connection, dismiss, failure, logOut, notices, notify, principal, running } from './store.ts';
import { StasisError } from '../errors.ts';

const LINKS = [
  { page: 'guests', href: '#/', label: 'Guests' },
  { page: 'host', href: '#/host', label: 'Host' },
  { page: 'events', href: '#/events', label: 'Events' },
] as const;

/** `stasis web` serves the page on the user's own host, and lets in by a link; a daemon serves it to others by HTTPS. */
const isByLink = location.protocol === 'http:';

export function App() {
  const { value: shown } = route;
  useEffect(() => {
    document.title = `${titleOf(shown)} · Stasis`;
  }, [shown]);
  if (connection.value === 'no-session') return isByLink ? <NoSession /> : <LoginView />;
  return (
    <>
      <a class="skip" href="#main" onClick={focusMain}>
        Skip to the content
      </a>
      <header class="top">
        <a class="brand" href="#/">
          <img src="./icon.svg" alt="" width="24" height="24" />
          Stasis
        </a>
        <nav aria-label="Pages">
          {LINKS.filter(({ page }) => page !== 'host' || seesHost()).map(({ page, href, label }) => (
            <a key={page} href={href} aria-current={isUnder(shown, page) ? 'page' : undefined}>
              {label}
            </a>
          ))}
        </nav>
        <Connection />
        <Who />
      </header>
      <main id="main" tabIndex={-1}>
        {failure.value === undefined ? (
          <Page shown={shown} />
        ) : (
          <>
            <div class="title">
              <h1>{titleOf(shown)}</h1>
            </div>
            <Failure error={failure.value} />
            {shown.page === 'guest' && (
              <p>
                <a href="#/">All guests</a>
              </p>
            )}
          </>
        )}
      </main>
      <DialogHost />
      <Notices />
    </>
  );
}

function Page({ shown }: { shown: Route }) {
  switch (shown.page) {
    case 'guests':
      return <GuestsView />;
    case 'guest':
      return <GuestView key={shown.guest} name={shown.guest} tab={shown.tab} />;
    case 'host':
      return <HostView />;
    case 'events':
      return <EventsView />;
    default:
      return shown satisfies never;
  }
}

/** What concerns all guests is for nobody who sees some only. */
function seesHost(): boolean {
  return principal.value?.labels === null;
}

function Who() {
  const { value } = principal;
  if (value === undefined) return null;
  const { name, role, labels, by } = value;
  const guests = labels === null ? '' : `, guests labelled ${labels.join(', ')}`;
  return (
    <div class="who">
      <span title={`known by ${by === 'user' ? 'the user' : `a ${by}`}${guests}`}>
        {name} <span class="muted">· {role}</span>
      </span>
      {by === 'session' && (
        <button type="button" class="plain" onClick={leave}>
          Log out
        </button>
      )}
    </div>
  );
}

function leave(): void {
  logOut().catch((error: unknown) => notify('failed', StasisError.from(error).message));
}

function Connection() {
  const busy = running.value.size;
  const { value } = connection;
  return (
    <p class={`connection ${value}`} role="status">
      {value === 'lost' && 'Connection lost, trying again…'}
      {value === 'live' && busy > 0 && `${busy} running`}
    </p>
  );
}

function Notices() {
  return (
    <div class="notices" role="log" aria-live="polite" aria-label="Notices">
      {notices.value.map(({ id, kind, text }) => (
        <div class={`notice ${kind}`} key={id}>
          <p>{text}</p>
          <button type="button" class="plain" aria-label="Dismiss" onClick={() => dismiss(id)}>
            ×
          </button>
        </div>
      ))}
    </div>
  );
}

function NoSession() {
  return (
    <main class="door" id="main">
      <img src="./icon.svg" alt="" width="48" height="48" />
      <h1>This page has no session</h1>
      <p>
        A link is good for one browser and as long as <code>stasis web</code> runs. In its terminal Enter
        prints another; or run it again.
      </p>
    </main>
  );
}

function focusMain(event: Event): void {
  event.preventDefault();
  document.getElementById('main')?.focus();
}

function isUnder(shown: Route, page: Route['page']): boolean {
  return shown.page === page || (shown.page === 'guest' && page === 'guests');
}

function titleOf(shown: Route): string {
  if (shown.page === 'guest') return shown.guest;
  return { guests: 'Guests', host: 'Host', events: 'Events' }[shown.page];
}
