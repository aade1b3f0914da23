/** All guests: how they are, how old their newest image is, what goes on. */
import { computed, signal } from '@preact/signals';
import { useEffect, useState } from 'preact/hooks';
import type { Guest, Operation } from '../api/schemas.ts';
import { count, formatBytes } from '../units.ts';
import { Age, Empty, Loading, Progress, State } from './common.tsx';
import { guestAddress } from './router.ts';
import { guests, may, principal, running } from './store.ts';

/** `web2` before `web10`. Made once: to make one costs more than to compare. */
const byName = new Intl.Collator('en', { numeric: true });

const COLUMNS = {
  name: { title: 'Guest', by: (a: Guest, b: Guest) => byName.compare(a.name, b.name) },
  state: { title: 'State', by: (a: Guest, b: Guest) => a.state.localeCompare(b.state) },
  memory: { title: 'Memory', by: (a: Guest, b: Guest) => b.memoryBytes - a.memoryBytes },
  images: { title: 'Images', by: (a: Guest, b: Guest) => b.images - a.images },
  newest: {
    title: 'Newest image',
    by: (a: Guest, b: Guest) => (b.lastImageAt ?? '').localeCompare(a.lastImageAt ?? ''),
  },
} as const;
type Column = keyof typeof COLUMNS;

const search = signal('');
const sorting = signal<Column>('name');

const shown = computed(() => {
  const wanted = search.value.trim().toLowerCase();
  return (guests.value ?? [])
    .filter(({ name, state }) => name.toLowerCase().includes(wanted) || state === wanted)
    .toSorted(COLUMNS[sorting.value].by);
});

export function GuestsView() {
  const { value: all } = guests;
  return (
    <>
      <div class="title">
        <h1>Guests</h1>
        {all !== undefined && all.length > 0 && <Summary all={all} />}
        <label class="search">
          <span class="hidden">Search by name or state</span>
          <input
            type="search"
            placeholder="Search by name or state"
            value={search.value}
            onInput={(event) => {
              search.value = event.currentTarget.value;
            }}
          />
        </label>
      </div>
      {all === undefined ? <Loading rows={8} /> : all.length === 0 ? <NoGuests /> : <Table />}
    </>
  );
}

/** Rows that are drawn first: more than a screen shows; and how many more with each frame after that. */
const FIRST_ROWS = 40;
const NEXT_ROWS = 80;

/**
 * A long list is drawn from its beginning on, so that what is seen is there at once.
 * @param order what it is listed by: another begins anew, the same with other contents stays as long as it is
 */
function useGradually<T>(all: readonly T[], order: string): readonly T[] {
  const [drawn, setDrawn] = useState({ order, count: FIRST_ROWS });
  const length = drawn.order === order ? drawn.count : FIRST_ROWS;
  useEffect(() => {
    if (length >= all.length) return undefined;
    const frame = requestAnimationFrame(() => setDrawn({ order, count: length + NEXT_ROWS }));
    return () => cancelAnimationFrame(frame);
  }, [all.length, order, length]);
  return all.slice(0, length);
}

function Summary({ all }: { all: readonly Guest[] }) {
  const runs = all.filter(({ state }) => state !== 'stopped' && state !== 'crashed').length;
  const crashed = all.filter(({ state }) => state === 'crashed').length;
  return (
    <p class="muted">
      {count(all.length, 'guest')}, {runs} running
      {crashed > 0 && <span class="bad">, {crashed} crashed</span>}
    </p>
  );
}

function Table() {
  const rows = useGradually(shown.value, `${sorting.value} ${search.value}`);
  if (shown.value.length === 0) return <Empty title="No guest has that name or state" />;
  return (
    <table class="guests">
      <thead>
        <tr>
          {Object.entries(COLUMNS).map(([key, { title }]) => (
            <th key={key} scope="col" aria-sort={sorting.value === key ? 'ascending' : undefined}>
              <button
                type="button"
                class="plain"
                onClick={() => {
                  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the keys of the very object
                  sorting.value = key as Column;
                }}
              >
                {title}
              </button>
            </th>
          ))}
          <th scope="col">Host boots · shuts down</th>
        </tr>
      </thead>
      <tbody>
        {rows.map((guest) => (
          <Row key={guest.uuid} guest={guest} operation={running.value.get(guest.name)} />
        ))}
      </tbody>
    </table>
  );
}

function Row({ guest, operation }: { guest: Guest; operation: Operation | undefined }) {
  const { name, state, memoryBytes, cpus, images, lastImage, lastImageAt, policy } = guest;
  return (
    <tr>
      <th scope="row">
        <a href={guestAddress(name)}>{name}</a>
      </th>
      <td data-label="State">
        {operation === undefined ? <State state={state} /> : <Progress operation={operation} />}
      </td>
      <td data-label="Memory" class="number">
        {formatBytes(memoryBytes)} <span class="muted">· {count(cpus, 'CPU')}</span>
      </td>
      <td data-label="Images" class="number">
        {images}
      </td>
      <td data-label="Newest">
        {lastImage === null || lastImageAt === null ? (
          <span class="muted">none</span>
        ) : (
          <>
            {lastImage} <span class="muted">· {<Age at={lastImageAt} />}</span>
          </>
        )}
      </td>
      <td data-label="Boot · shutdown" class="muted">
        {policy.onBoot} · {policy.onShutdown}
      </td>
    </tr>
  );
}

function NoGuests() {
  const labels = principal.value?.labels ?? null;
  if (labels !== null) {
    return (
      <Empty title="No guests">
        <p>You see guests labelled {labels.join(' or ')}. There is none.</p>
      </Empty>
    );
  }
  if (!may('admin')) {
    return (
      <Empty title="No guests yet">
        <p>Who has the role admin here can define one.</p>
      </Empty>
    );
  }
  return (
    <Empty title="No guests yet">
      <p>Write down what the machine has, and define it:</p>
      <pre>
        <code>{`$ cat web1.yaml
name: web1
memory: 2GiB
disks:
  - {name: root, path: /srv/vms/web1.qcow2, format: qcow2}

$ stasis define web1.yaml`}</code>
      </pre>
      <p>It appears here by itself.</p>
    </Empty>
  );
}
