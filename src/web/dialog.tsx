/** The one dialog: a question with what will be lost, and an answer that may be refused. */
import { effect, signal } from '@preact/signals';
import type { ComponentChildren, JSX } from 'preact';
import { useEffect, useRef, useState } from 'preact/hooks';
import { NAME_PATTERN } from '../api/constants.ts';
import type { Operation } from '../api/schemas.ts';
import { StasisError } from '../errors.ts';
import { begin, connection } from './store.ts';

/** As browsers want it: anchored by itself, and with a dash of a class escaped. */
const NAME_INPUT = NAME_PATTERN.slice(1, -1).replaceAll('-]', '\\-]');

const open = signal<JSX.Element | undefined>(undefined);

// What somebody was asked is no question to whoever logs in next.
effect(() => {
  if (connection.value === 'no-session') open.value = undefined;
});

export function openDialog(dialog: JSX.Element): void {
  open.value = dialog;
}

export function DialogHost() {
  return open.value ?? null;
}

interface QuestionProps {
  readonly title: string;
  /** of the button */
  readonly action: string;
  readonly dangerous?: boolean;
  /** what is told when it is done */
  readonly done: string;
  readonly submit: () => Promise<Operation>;
  readonly children: ComponentChildren;
}

export function Question({ title, action, dangerous = false, done, submit, children }: QuestionProps) {
  const dialog = useRef<HTMLDialogElement>(null);
  const [refusal, setRefusal] = useState<string>();
  const [asking, setAsking] = useState(false);
  useEffect(() => dialog.current?.showModal(), []);
  const send = async () => {
    setAsking(true);
    try {
      await begin(done, submit());
      dialog.current?.close();
    } catch (error) {
      setRefusal(StasisError.from(error).message);
      setAsking(false);
    }
  };
  return (
    <dialog
      ref={dialog}
      aria-labelledby="dialog-title"
      onClose={() => {
        open.value = undefined;
      }}
    >
      <form
        onSubmit={(event) => {
          event.preventDefault();
          void send();
        }}
      >
        <h2 id="dialog-title">{title}</h2>
        {children}
        {refusal !== undefined && (
          <p class="failure" role="alert">
            {refusal}
          </p>
        )}
        <div class="answers">
          <button type="button" onClick={() => dialog.current?.close()}>
            Cancel
          </button>
          <button type="submit" class={dangerous ? 'danger' : 'primary'} disabled={asking}>
            {action}
          </button>
        </div>
      </form>
    </dialog>
  );
}

export function Check(props: {
  label: string;
  checked: boolean;
  onChange: (checked: boolean) => void;
  hint?: string;
}) {
  return (
    <label class="check">
      <input
        type="checkbox"
        checked={props.checked}
        onChange={(event) => props.onChange(event.currentTarget.checked)}
      />
      <span>
        {props.label}
        {props.hint !== undefined && <small>{props.hint}</small>}
      </span>
    </label>
  );
}

export function TextField(props: {
  label: string;
  value: string;
  onInput: (value: string) => void;
  hint?: string;
  required?: boolean;
  /** of a guest or an image */
  isName?: boolean;
}) {
  return (
    <label class="field">
      {props.label}
      <input
        type="text"
        autocomplete="off"
        spellcheck={false}
        value={props.value}
        required={props.required ?? false}
        {...(props.isName === true
          ? { pattern: NAME_INPUT, title: 'letters, digits, dots, dashes, underscores' }
          : {})}
        onInput={(event) => props.onInput(event.currentTarget.value)}
      />
      {props.hint !== undefined && <small>{props.hint}</small>}
    </label>
  );
}
