/** The machine's buttons that lose something, or may. */
import { useState } from 'preact/hooks';
import { DEFAULT_IMAGE } from '../api/constants.ts';
import type { Guest } from '../api/schemas.ts';
import { formatAge } from '../units.ts';
import { Check, Question } from './dialog.tsx';
import { client, guestShown } from './store.ts';

export function StartDialog({ guest }: { guest: Guest }) {
  const saved = guestShown.value?.images.find(({ name }) => name === DEFAULT_IMAGE);
  const [fresh, setFresh] = useState(false);
  return (
    <Question
      title={`Start ${guest.name}`}
      action="Start"
      done={`${guest.name} runs`}
      submit={() => client.start(guest.name, { fresh }, { wait: false })}
    >
      {saved === undefined ? (
        <p>It boots from its disks as they are now.</p>
      ) : (
        <>
          <p>
            {fresh
              ? 'It boots from its disks; the default image is kept.'
              : `It goes on where it was saved ${formatAge(saved.createdAt)}. The default image is used up by that.`}
          </p>
          <Check label="Boot it fresh instead" checked={fresh} onChange={setFresh} />
        </>
      )}
    </Question>
  );
}

const BUTTONS = {
  shutdown: {
    title: 'Shut down',
    done: 'is shut down',
    text: 'Its power button is pressed, and its system ends by itself. What its programs hold in memory is gone then.',
    loss: undefined,
  },
  stop: {
    title: 'Pull the plug of',
    done: 'is off',
    text: 'It stops at once, like a power cut.',
    loss: 'Its memory, and all that it has not yet written to its disks, is lost.',
  },
  reset: {
    title: 'Reset',
    done: 'was reset',
    text: 'It boots again at once, like by its reset button.',
    loss: 'Its memory, and all that it has not yet written to its disks, is lost.',
  },
} as const;

export function PowerDialog({ guest, kind }: { guest: Guest; kind: keyof typeof BUTTONS }) {
  const { title, done, text, loss } = BUTTONS[kind];
  const submit = () => {
    if (kind === 'shutdown') return client.shutdown(guest.name, {}, { wait: false });
    return client[kind](guest.name, { wait: false });
  };
  return (
    <Question
      title={`${title} ${guest.name}`}
      action={kind === 'stop' ? 'Pull the plug' : title}
      dangerous={loss !== undefined}
      done={`${guest.name} ${done}`}
      submit={submit}
    >
      <p>{text}</p>
      {loss !== undefined && <p class="loss">{loss}</p>}
    </Question>
  );
}
