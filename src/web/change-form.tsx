/** Changes that are made in a view, not in a dialog: begun, and why if they are refused. */
import type { ComponentChildren } from 'preact';
import { useState } from 'preact/hooks';
import type { Operation } from '../api/schemas.ts';
import { StasisError } from '../errors.ts';
import { RoleButton } from './common.tsx';
import { begin, may } from './store.ts';

/** @returns how to begin a change, and what to show of its refusal */
export function useChange() {
  const [refusal, setRefusal] = useState<string>();
  const change = (done: string, operation: Promise<Operation>) => {
    setRefusal(undefined);
    begin(done, operation).catch((error: unknown) => setRefusal(StasisError.from(error).message));
  };
  return { change, refusal: refusal === undefined ? null : <Refusal text={refusal} /> };
}

function Refusal({ text }: { text: string }) {
  return (
    <p class="failure" role="alert">
      {text}
    </p>
  );
}

interface ChangeFormProps {
  readonly class: string;
  /** of the button */
  readonly action: string;
  /** there is nothing to save */
  readonly unchanged: boolean;
  /** what is told when it is done */
  readonly done: string;
  readonly submit: () => Promise<Operation>;
  readonly children: ComponentChildren;
}

export function ChangeForm({ class: style, action, unchanged, done, submit, children }: ChangeFormProps) {
  const { change, refusal } = useChange();
  return (
    <form
      class={style}
      onSubmit={(event) => {
        event.preventDefault();
        change(done, submit());
      }}
    >
      <fieldset class="whole" disabled={!may('operator')}>
        {children}
        <RoleButton type="submit" class="primary" disabled={unchanged}>
          {action}
        </RoleButton>
      </fieldset>
      {refusal}
    </form>
  );
}

export function NumberField(props: {
  label: string;
  value: number;
  min?: number;
  max: number;
  onInput: (value: number) => void;
}) {
  return (
    <label class="field">
      {props.label}
      <input
        type="number"
        min={props.min ?? 0}
        max={props.max}
        required
        value={props.value}
        onInput={(event) => props.onInput(event.currentTarget.valueAsNumber)}
      />
    </label>
  );
}
