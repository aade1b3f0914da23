/** What happened on this host, newest first, as it happens. */
import { describeCaller, formatDate } from '../units.ts';
import { Age, Empty, Loading } from './common.tsx';
import { guestAddress } from './router.ts';
import { audit, events } from './store.ts';

export function EventsView() {
  const { value } = events;
  return (
    <>
      <div class="title">
        <h1>Events</h1>
      </div>
      {value === undefined ? (
        <Loading rows={10} />
      ) : value.length === 0 ? (
        <Empty title="Nothing has happened yet" />
      ) : (
        <table class="events">
          <thead>
            <tr>
              <th scope="col">When</th>
              <th scope="col">What</th>
              <th scope="col">Guest</th>
              <th scope="col">Message</th>
            </tr>
          </thead>
          <tbody>
            {value.map(({ id, at, type, action, guest, message }) => (
              <tr key={id}>
                <td data-label="When" title={formatDate(at)} class="muted">
                  <Age at={at} />
                </td>
                <td data-label="What">
                  {type}{' '}
                  <span class={action === 'failed' || action === 'crashed' ? 'bad' : ''}>{action}</span>
                </td>
                <td data-label="Guest">{guest !== null && <a href={guestAddress(guest)}>{guest}</a>}</td>
                <td data-label="Message">{message}</td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
      <Audit />
    </>
  );
}

function Audit() {
  const { value } = audit;
  if (value === null || value.length === 0) return null;
  return (
    <>
      <h2>Who did what</h2>
      <table class="events audit">
        <thead>
          <tr>
            <th scope="col">When</th>
            <th scope="col">Who</th>
            <th scope="col">What</th>
            <th scope="col">Guest</th>
            <th scope="col">Outcome</th>
          </tr>
        </thead>
        <tbody>
          {value.map(({ id, at, caller, action, guest, image, outcome, message }) => (
            <tr key={id}>
              <td data-label="When" title={formatDate(at)} class="muted">
                <Age at={at} />
              </td>
              <td data-label="Who">{describeCaller(caller)}</td>
              <td data-label="What">{action}</td>
              <td data-label="Guest">
                {guest}
                {image !== null && ` / ${image}`}
              </td>
              <td data-label="Outcome" title={message ?? undefined}>
                <span class={message === null ? '' : 'bad'}>{outcome}</span>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </>
  );
}
