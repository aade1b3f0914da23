/** Saving a guest: under which name, and what it will cost. */
import { useEffect, useState } from 'preact/hooks';
import { DEFAULT_IMAGE } from '../api/constants.ts';
import type { Guest, SavePrediction } from '../api/schemas.ts';
import { StasisError } from '../errors.ts';
import { formatBytes, formatDuration } from '../units.ts';
import { Question, TextField } from './dialog.tsx';
import { client, guestShown } from './store.ts';

export function SaveDialog({ guest, live }: { guest: Guest; live: boolean }) {
  const [name, setName] = useState('');
  const [description, setDescription] = useState('');
  const request = { name: name === '' ? undefined : name, live, description: description || undefined };
  return (
    <Question
      title={live ? `Save ${guest.name} while it runs` : `Save ${guest.name} and stop it`}
      action={live ? 'Save' : 'Save and stop'}
      done={`${guest.name} is saved${name === '' ? '' : ` as ${name}`}`}
      submit={() => client.createSaveImage(guest.name, request, { wait: false })}
    >
      {live ? (
        <Prediction guest={guest.name} />
      ) : (
        <p>
          It stands still from now on, and is off when its memory is written. Start puts it back to this very
          instant.
        </p>
      )}
      <TextField
        label="Name"
        value={name}
        onInput={setName}
        isName
        hint="Without a name it is the default image, which Start restores."
      />
      {name === '' && <Replaced />}
      <TextField label="Description" value={description} onInput={setDescription} />
    </Question>
  );
}

function Replaced() {
  const isThere = guestShown.value?.images.some((image) => image.name === DEFAULT_IMAGE) === true;
  return isThere ? (
    <p class="loss">The default image that is there now is replaced, and can't be restored any more.</p>
  ) : null;
}

/** What a live save would cost now: measured of the guest, so it takes a moment. */
function Prediction({ guest }: { guest: string }) {
  const [prediction, setPrediction] = useState<SavePrediction>();
  const [refusal, setRefusal] = useState<string>();
  useEffect(() => {
    const gone = new AbortController();
    client
      .predictSave(guest, {}, { signal: gone.signal })
      .then(
        setPrediction,
        (error: unknown) => !gone.signal.aborted && setRefusal(StasisError.from(error).message),
      );
    return () => gone.abort();
  }, [guest]);
  if (refusal !== undefined) return <p class="loss">{refusal}</p>;
  if (prediction === undefined)
    return <p class="prediction muted">Looking at how fast the guest changes its memory…</p>;
  const chosen = prediction.methods.find(({ method }) => method === prediction.method);
  if (chosen === undefined) return <p class="prediction">It stands still already: nothing is interrupted.</p>;
  return (
    <p class="prediction" data-testid="prediction">
      It will stand still for about <strong>{formatDuration(chosen.predictedPauseMs)}</strong>.{' '}
      <span class="muted">
        {chosen.method}, {formatDuration(chosen.predictedSaveMs)} in all, {formatBytes(chosen.predictedBytes)}{' '}
        to write
      </span>
    </p>
  );
}
