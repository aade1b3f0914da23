/** What the guest is made of, and what happens to it with the host. */
import { useState } from 'preact/hooks';
import { FALLBACKS, ON_BOOT, ON_SHUTDOWN } from '../api/constants.ts';
import type { Guest, Policy } from '../api/schemas.ts';
import { count, formatBytes } from '../units.ts';
import { ChangeForm, NumberField } from './change-form.tsx';
import { Fields } from './common.tsx';
import { SchedulesSection } from './schedules-view.tsx';
import { client } from './store.ts';

export function SettingsView({ guest }: { guest: Guest }) {
  return (
    <div class="settings">
      <section>
        <h2>When the host boots and shuts down</h2>
        <PolicyForm key={JSON.stringify(guest.policy)} guest={guest} />
      </section>
      <SchedulesSection guest={guest} />
      <section>
        <h2>Machine</h2>
        <Fields
          of={[
            ['UUID', guest.uuid],
            ['Machine', guest.machine],
            ['CPU', `${guest.cpu}, ${count(guest.cpus, 'CPU')}`],
            ['Memory', formatBytes(guest.memoryBytes)],
            ['Accelerator', guest.accelerator],
            ['Process', guest.pid === null ? 'none' : `pid ${guest.pid}`],
          ]}
        />
      </section>
      <section>
        <h2>Disks</h2>
        <table>
          <thead>
            <tr>
              <th scope="col">Disk</th>
              <th scope="col">Size</th>
              <th scope="col">Layers</th>
              <th scope="col">File</th>
            </tr>
          </thead>
          <tbody>
            {guest.disks.map((disk) => (
              <tr key={disk.name}>
                <th scope="row">{disk.name}</th>
                <td data-label="Size" class="number">
                  {formatBytes(disk.sizeBytes)}
                </td>
                <td data-label="Layers" class="number">
                  {disk.layers}
                </td>
                <td data-label="File" class="path">
                  {disk.path}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </section>
    </div>
  );
}

function PolicyForm({ guest }: { guest: Guest }) {
  // What is left alone isn't sent: where a guest has no word of its own, the host's settings go on to hold.
  const [changes, setChanges] = useState<Partial<Policy>>({});
  const policy: Policy = { ...guest.policy, ...changes };
  const change = (part: Partial<Policy>) => setChanges({ ...changes, ...part });
  const unchanged = JSON.stringify(policy) === JSON.stringify(guest.policy);
  return (
    <ChangeForm
      class="policy"
      action="Save policy"
      unchanged={unchanged}
      done={`The policy of ${guest.name} is changed`}
      submit={() => client.setPolicy(guest.name, changes, { wait: false })}
    >
      <Choice label="On boot" value={policy.onBoot} of={ON_BOOT} onChange={(onBoot) => change({ onBoot })} />
      <Choice
        label="On shutdown"
        value={policy.onShutdown}
        of={ON_SHUTDOWN}
        onChange={(onShutdown) => change({ onShutdown })}
      />
      <NumberField label="Order" value={policy.order} max={10_000} onInput={(order) => change({ order })} />
      <NumberField
        label="Delay, seconds"
        value={policy.delaySeconds}
        max={3600}
        onInput={(delaySeconds) => change({ delaySeconds })}
      />
      <NumberField
        label="Time limit, seconds"
        value={policy.timeLimitSeconds}
        min={1}
        max={86_400}
        onInput={(timeLimitSeconds) => change({ timeLimitSeconds })}
      />
      <Choice
        label="Fallback"
        value={policy.fallback}
        of={FALLBACKS}
        onChange={(fallback) => change({ fallback })}
      />
    </ChangeForm>
  );
}

function Choice<T extends string>(props: {
  label: string;
  value: T;
  of: readonly T[];
  onChange: (value: T) => void;
}) {
  return (
    <label class="field">
      {props.label}
      <select
        value={props.value}
        onChange={(event) => {
          const chosen = props.of.find((one) => one === event.currentTarget.value);
          if (chosen !== undefined) props.onChange(chosen);
        }}
      >
        {props.of.map((one) => (
          <option key={one} value={one}>
            {one}
          </option>
        ))}
      </select>
    </label>
  );
}
