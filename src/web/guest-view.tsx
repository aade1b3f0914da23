/** One guest: its buttons, and a tab for each way to look at it. */
import type { Guest, GuestOverview } from '../api/schemas.ts';
import { lazy } from './lazy.tsx';
import { count, formatBytes } from '../units.ts';
import { Loading, NotForRole, Progress, RoleButton, State } from './common.tsx';
import { openDialog } from './dialog.tsx';
import { HistoryView } from './history-view.tsx';
import { ImagesView } from './images-view.tsx';
import { PowerDialog, StartDialog } from './power-dialogs.tsx';
import { guestAddress, TABS, type Tab } from './router.ts';
import { SaveDialog } from './save-dialog.tsx';
import { SettingsView } from './settings-view.tsx';
import { begin, client, guestShown, may, notify, running } from './store.ts';
import { StasisError } from '../errors.ts';

// The two terminals are the larger part of the page and not what one comes for first.
const ConsoleView = lazy(() => import('./console-view.tsx').then((module) => module.ConsoleView));
const ScreenView = lazy(() => import('./screen-view.tsx').then((module) => module.ScreenView));

const LABELS: Readonly<Record<Tab, string>> = {
  images: 'Images',
  screen: 'Screen',
  console: 'Console',
  history: 'History',
  settings: 'Settings',
};

export function GuestView({ name, tab }: { name: string; tab: Tab }) {
  const { value: overview } = guestShown;
  const operation = running.value.get(name);
  return (
    <>
      <div class="title">
        <h1>{name}</h1>
        {overview !== undefined && <Head guest={overview.guest} />}
      </div>
      {operation !== undefined && (
        <div class="under-way">
          <Progress operation={operation} />
          {operation.cancellable && <RoleButton onClick={() => cancel(operation.id)}>Cancel</RoleButton>}
        </div>
      )}
      {overview?.guest.state === 'crashed' && (
        <p class="failure" role="alert">
          {overview.guest.stateReason ?? 'It crashed.'}
        </p>
      )}
      <nav class="tabs" aria-label={`Views of ${name}`}>
        {TABS.map((one) => (
          <a key={one} href={guestAddress(name, one)} aria-current={one === tab ? 'page' : undefined}>
            {LABELS[one]}
          </a>
        ))}
      </nav>
      {overview === undefined ? <Loading /> : <TabView overview={overview} tab={tab} />}
    </>
  );
}

function TabView({ overview, tab }: { overview: GuestOverview; tab: Tab }) {
  const { guest } = overview;
  const mayType = may('operator');
  switch (tab) {
    case 'images':
      return <ImagesView overview={overview} />;
    case 'screen':
      return mayType ? <ScreenView guest={guest} /> : <NotForRole needs="operator" what="The screen" />;
    case 'console':
      return mayType ? <ConsoleView guest={guest} /> : <NotForRole needs="operator" what="The console" />;
    case 'history':
      return <HistoryView overview={overview} />;
    case 'settings':
      return <SettingsView guest={guest} />;
    default:
      return tab satisfies never;
  }
}

function Head({ guest }: { guest: Guest }) {
  const { state, memoryBytes, cpus } = guest;
  return (
    <>
      <p class="facts">
        <State state={state} />
        <span class="muted">
          {formatBytes(memoryBytes)} · {count(cpus, 'CPU')}
        </span>
      </p>
      <Buttons guest={guest} />
    </>
  );
}

function Buttons({ guest }: { guest: Guest }) {
  const { name, state } = guest;
  const busy = running.value.has(name);
  const runs = state === 'running' || state === 'paused';
  if (!runs) {
    return (
      <div class="buttons">
        <RoleButton class="primary" disabled={busy} onClick={() => openDialog(<StartDialog guest={guest} />)}>
          Start…
        </RoleButton>
      </div>
    );
  }
  const power = (kind: 'shutdown' | 'stop' | 'reset') =>
    openDialog(<PowerDialog guest={guest} kind={kind} />);
  return (
    <div class="buttons">
      <RoleButton
        class="primary"
        disabled={busy}
        onClick={() => openDialog(<SaveDialog guest={guest} live />)}
      >
        Live save…
      </RoleButton>
      <RoleButton disabled={busy} onClick={() => openDialog(<SaveDialog guest={guest} live={false} />)}>
        Save and stop…
      </RoleButton>
      {state === 'running' ? (
        <RoleButton disabled={busy} onClick={() => press(name, 'pause')}>
          Pause
        </RoleButton>
      ) : (
        <RoleButton disabled={busy} onClick={() => press(name, 'resume')}>
          Resume
        </RoleButton>
      )}
      <details class="more">
        <summary role="button">More</summary>
        <div onClick={closeMenu}>
          <RoleButton disabled={busy} onClick={() => power('shutdown')}>
            Shut down…
          </RoleButton>
          <RoleButton disabled={busy} onClick={() => power('reset')}>
            Reset…
          </RoleButton>
          <RoleButton disabled={busy} onClick={() => power('stop')}>
            Pull the plug…
          </RoleButton>
        </div>
      </details>
    </div>
  );
}

function closeMenu(event: MouseEvent): void {
  const { currentTarget } = event;
  if (currentTarget instanceof HTMLElement) currentTarget.closest('details')?.removeAttribute('open');
}

/** What loses nothing needs no question. */
function press(guest: string, button: 'pause' | 'resume'): void {
  const done = button === 'pause' ? `${guest} stands still` : `${guest} goes on`;
  begin(done, client[button](guest, { wait: false })).catch(tell);
}

function cancel(id: string): void {
  client.cancelOperation(id).catch(tell);
}

function tell(error: unknown): void {
  notify('failed', StasisError.from(error).message);
}
