/** What can be done with an image, each with what will be lost by it. */
import { useState } from 'preact/hooks';
import { DEFAULT_IMAGE } from '../api/constants.ts';
import type { Guest, Image } from '../api/schemas.ts';
import { count, formatAge, formatDate, formatGain } from '../units.ts';
import { Check, Question, TextField } from './dialog.tsx';
import { client } from './store.ts';

export function RestoreDialog({ guest, image }: { guest: Guest; image: Image }) {
  const runs = guest.state === 'running' || guest.state === 'paused';
  const [saveCurrent, setSaveCurrent] = useState(runs);
  const [paused, setPaused] = useState(false);
  const [drop, setDrop] = useState(false);
  const request = {
    saveCurrent: saveCurrent || undefined,
    paused: paused || undefined,
    delete: drop || undefined,
  };
  return (
    <Question
      title={`Restore ${guest.name} to ${image.name}`}
      action="Restore"
      dangerous={!saveCurrent}
      done={`${guest.name} is back at ${image.name}`}
      submit={() => client.restoreSaveImage(guest.name, image.name, request, { wait: false })}
    >
      <p>
        Memory, devices and disks go back to {formatDate(image.createdAt)} ({formatAge(image.createdAt)}).
      </p>
      <p class={saveCurrent ? 'kept' : 'loss'}>{lossOf(guest, saveCurrent)}</p>
      {runs && (
        <Check
          label="Save the present first"
          hint="live, under a name made from the time"
          checked={saveCurrent}
          onChange={setSaveCurrent}
        />
      )}
      <Check label="Let it stand still when it is back" checked={paused} onChange={setPaused} />
      <Check label="Delete the image once the guest runs" checked={drop} onChange={setDrop} />
    </Question>
  );
}

function lossOf({ currentImage, state }: Guest, saveCurrent: boolean): string {
  if (saveCurrent) return 'The present is kept as an image of its own: nothing is lost.';
  const since = currentImage === null ? 'since it was defined' : `since ${currentImage}`;
  return state === 'running' || state === 'paused'
    ? `Its present is lost: what is in its memory now, and what it wrote to its disks ${since}.`
    : `What it wrote to its disks ${since} is lost.`;
}

export function CloneDialog({ guest, image }: { guest: Guest; image: Image }) {
  const [name, setName] = useState('');
  const [paused, setPaused] = useState(false);
  return (
    <Question
      title={`A new guest from ${image.name}`}
      action="Clone"
      done={`${name} runs`}
      submit={() =>
        client.restoreSaveImage(
          guest.name,
          image.name,
          { asNewGuest: name, paused: paused || undefined },
          { wait: false },
        )
      }
    >
      <p>
        It begins where {guest.name} was at {formatDate(image.createdAt)}. {guest.name} and its images are
        left alone; what both have in common is stored once.
      </p>
      <TextField label="Name of the new guest" value={name} onInput={setName} required isName />
      <Check label="Let it stand still at first" checked={paused} onChange={setPaused} />
    </Question>
  );
}

export function DeleteDialog({ guest, image, children }: { guest: Guest; image: Image; children: number }) {
  return (
    <Question
      title={`Delete ${image.name}`}
      action="Delete"
      dangerous
      done={`${image.name} is deleted`}
      submit={() => client.deleteSaveImage(guest.name, image.name, { wait: false })}
    >
      <p class="loss">
        {guest.name} can't be put back to {formatDate(image.createdAt)} any more.
        {image.name === DEFAULT_IMAGE && ' Start boots it fresh from then on.'}
      </p>
      <p>
        {formatGain(image)} become free.{' '}
        {children > 0 && `${count(children, 'image')} taken after it stay as they are.`}{' '}
        {image.current && 'The guest itself goes on as it is.'}
      </p>
    </Question>
  );
}

export function ProtectDialog({ guest, image }: { guest: Guest; image: Image }) {
  const { name } = image;
  const isOn = image.protected;
  return (
    <Question
      title={`${isOn ? 'Unprotect' : 'Protect'} ${name}`}
      action={isOn ? 'Unprotect' : 'Protect'}
      dangerous={isOn}
      done={isOn ? `${name} may be removed again` : `${name} is protected`}
      submit={() =>
        isOn
          ? client.unprotectSaveImage(guest.name, name, { wait: false })
          : client.protectSaveImage(guest.name, name, { wait: false })
      }
    >
      <p class={isOn ? 'loss' : 'kept'}>
        {isOn
          ? 'From then on it can be deleted, by the rules of its guest too.'
          : 'Nothing removes it until it is unprotected.'}
      </p>
    </Question>
  );
}
