/** The host: its space, its daemon, what it can do and how it could do more. */
import type { Doctor, HostStatus } from '../api/schemas.ts';
import { count, formatBytes, formatDate } from '../units.ts';
import { Fields, Loading } from './common.tsx';
import { host } from './store.ts';

export function HostView() {
  const { value } = host;
  return (
    <>
      <div class="title">
        <h1>Host</h1>
      </div>
      {value === undefined ? (
        <Loading />
      ) : (
        <div class="host">
          <Storage status={value.status} />
          <Daemon status={value.status} />
          <Checks doctor={value.doctor} />
        </div>
      )}
    </>
  );
}

function Storage({ status: { storedBytes, freeBytes, images } }: { status: HostStatus }) {
  return (
    <section>
      <h2>Storage</h2>
      <p class="big">
        {formatBytes(storedBytes)} <span class="muted">in {count(images, 'image')}</span>
      </p>
      <meter
        aria-label="Images, of what they and the free space are together"
        min={0}
        max={storedBytes + freeBytes}
        value={storedBytes}
      />
      <p class="muted">{formatBytes(freeBytes)} free</p>
    </section>
  );
}

function Daemon({ status }: { status: HostStatus }) {
  return (
    <section>
      <h2>Daemon</h2>
      <Fields
        of={[
          ['Version', status.version],
          ['Since', formatDate(status.startedAt)],
          ['Process', `pid ${status.pid}, ${formatBytes(status.residentBytes)}`],
          ['QEMU', status.qemu?.version ?? 'none found'],
          ['Guests', `${status.guests.defined} defined, ${status.guests.running} running`],
          ['Home', status.home],
        ]}
      />
    </section>
  );
}

function Checks({ doctor: { checks } }: { doctor: Doctor }) {
  return (
    <section class="wide">
      <h2>Doctor</h2>
      <ul class="checks">
        {checks.map(({ name, serves, status, message, cure }) => (
          <li key={name} class={status}>
            <span class="status">{status}</span>
            <div>
              <strong>{name}</strong> <span class="muted">{serves}</span>
              <p>{message}</p>
              {cure !== null && <p class="cure">{cure}</p>}
            </div>
          </li>
        ))}
      </ul>
    </section>
  );
}
