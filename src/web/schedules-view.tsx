/** When a guest is saved by itself, and which of its images stay. */
import { useState } from 'preact/hooks';
import type { Guest } from '../api/schemas.ts';
import type { Retention, Schedule } from '../api/schedules.ts';
import { formatBytes, formatDate } from '../units.ts';
import { ChangeForm, NumberField, useChange } from './change-form.tsx';
import { RoleButton } from './common.tsx';
import { openDialog, Question, TextField } from './dialog.tsx';
import { client } from './store.ts';

export function SchedulesSection({ guest }: { guest: Guest }) {
  return (
    <section>
      <h2>Saved by itself</h2>
      {guest.schedules.length === 0 ? (
        <p class="muted">Only when somebody saves it.</p>
      ) : (
        <ScheduleTable guest={guest} />
      )}
      <RoleButton onClick={() => openDialog(<AddDialog guest={guest} />)}>Add a schedule…</RoleButton>
      <h3>Images that stay</h3>
      <RetentionForm key={JSON.stringify(guest.retention)} guest={guest} />
    </section>
  );
}

function ScheduleTable({ guest }: { guest: Guest }) {
  return (
    <table class="schedules">
      <thead>
        <tr>
          <th scope="col">Schedule</th>
          <th scope="col">When</th>
          <th scope="col">Next</th>
          <th scope="col">Last</th>
          <th scope="col">Change</th>
        </tr>
      </thead>
      <tbody>
        {guest.schedules.map((schedule) => (
          <ScheduleRow key={schedule.name} guest={guest} schedule={schedule} />
        ))}
      </tbody>
    </table>
  );
}

function ScheduleRow({ guest, schedule }: { guest: Guest; schedule: Schedule }) {
  const { name, cron, timeZone, paused, nextRunAt, lastRun } = schedule;
  const { change, refusal } = useChange();
  const toggle = () =>
    change(
      `Schedule ${name} is ${paused ? 'resumed' : 'paused'}`,
      client.changeSchedule(guest.name, name, { paused: !paused }, { wait: false }),
    );
  return (
    <tr>
      <th scope="row">{name}</th>
      <td data-label="When" class="when">
        {cron}
        {timeZone !== null && ` ${timeZone}`}
      </td>
      <td data-label="Next">{paused ? 'paused' : nextRunAt === null ? 'never' : formatDate(nextRunAt)}</td>
      <td data-label="Last">{lastOf(lastRun)}</td>
      <td data-label="Change">
        <span class="buttons">
          <RoleButton onClick={toggle} aria-label={`${paused ? 'Resume' : 'Pause'} schedule ${name}`}>
            {paused ? 'Resume' : 'Pause'}
          </RoleButton>
          <RoleButton
            onClick={() => openDialog(<RemoveDialog guest={guest} name={name} />)}
            aria-label={`Remove schedule ${name}…`}
          >
            Remove…
          </RoleButton>
        </span>
        {refusal}
      </td>
    </tr>
  );
}

function lastOf(run: Schedule['lastRun']): string {
  if (run === null) return 'never';
  if (run.state === 'waiting') return 'under way';
  return run.state === 'done' ? (run.image ?? 'done') : `${run.state}: ${run.message}`;
}

function AddDialog({ guest }: { guest: Guest }) {
  const [name, setName] = useState('nightly');
  const [cron, setCron] = useState('0 3 * * *');
  const [timeZone, setTimeZone] = useState('');
  const request = { name, cron, timeZone: timeZone === '' ? null : timeZone };
  return (
    <Question
      title={`Save ${guest.name} by itself`}
      action="Add"
      done={`Schedule ${name} is there`}
      submit={() => client.addSchedule(guest.name, request, { wait: false })}
    >
      <TextField label="Name" value={name} onInput={setName} required isName />
      <TextField
        label="When"
        value={cron}
        onInput={setCron}
        required
        hint="minute hour day month weekday, or @hourly, @daily, @weekly"
      />
      <TextField
        label="Time zone"
        value={timeZone}
        onInput={setTimeZone}
        hint="such as Europe/Berlin; empty: the host's"
      />
    </Question>
  );
}

function RemoveDialog({ guest, name }: { guest: Guest; name: string }) {
  return (
    <Question
      title={`Remove schedule ${name}`}
      action="Remove"
      dangerous
      done={`Schedule ${name} is gone`}
      submit={() => client.removeSchedule(guest.name, name, { wait: false })}
    >
      <p>{guest.name} is no longer saved by it. The images that it made stay.</p>
    </Question>
  );
}

const RULES = [
  ['keepLast', 'Newest'],
  ['keepHourly', 'Hourly'],
  ['keepDaily', 'Daily'],
  ['keepWeekly', 'Weekly'],
  ['keepMonthly', 'Monthly'],
  ['keepYearly', 'Yearly'],
] as const satisfies readonly (readonly [keyof Retention, string])[];

/** Rules as numbers; what is rarer is shown, and set by the command line. */
function RetentionForm({ guest }: { guest: Guest }) {
  const [changes, setChanges] = useState<Partial<Retention>>({});
  const rules = { ...guest.retention, ...changes };
  const isSame = JSON.stringify(rules) === JSON.stringify(guest.retention);
  return (
    <ChangeForm
      class="policy retention"
      action="Save rules"
      unchanged={isSame}
      done={`The rules of ${guest.name} are changed`}
      submit={() => client.setRetention(guest.name, changes, { wait: false })}
    >
      {RULES.map(([rule, label]) => (
        <NumberField
          key={rule}
          label={label}
          value={rules[rule]}
          max={100_000}
          onInput={(count) => setChanges({ ...changes, [rule]: count })}
        />
      ))}
      <p class="muted wide">
        0: no such rule; without any all images stay. Those made by hand{' '}
        {rules.all ? 'go by the rules too' : 'stay in any case'}, and so do the protected ones and the newest
        that verified{quotaOf(rules)}.
      </p>
    </ChangeForm>
  );
}

function quotaOf({ quotaBytes, quotaImages }: Retention): string {
  const parts = [
    ...(quotaBytes === null ? [] : [formatBytes(quotaBytes)]),
    ...(quotaImages === null ? [] : [`${quotaImages} images`]),
  ];
  return parts.length === 0 ? '' : `; the quota is ${parts.join(' and ')}`;
}
