/** Where a browser on another machine is let in: by a token, which is typed once. */
import { useState } from 'preact/hooks';
import { StasisError } from '../errors.ts';
import { hasEnded, logIn } from './store.ts';

export function LoginView() {
  const [token, setToken] = useState('');
  const [refusal, setRefusal] = useState<string>();
  const [asking, setAsking] = useState(false);
  const send = async () => {
    setAsking(true);
    setRefusal(undefined);
    try {
      await logIn(token.trim());
    } catch (error) {
      setRefusal(explain(StasisError.from(error)));
      setAsking(false);
    }
  };
  return (
    <main class="door" id="main">
      <img src="./icon.svg" alt="" width="48" height="48" />
      <h1>Stasis on {location.hostname}</h1>
      {hasEnded.value && <p role="status">Your session has ended. Log in again to go on.</p>}
      <form
        class="login"
        onSubmit={(event) => {
          event.preventDefault();
          void send();
        }}
      >
        <label class="field">
          Token
          <input
            type="password"
            name="token"
            autocomplete="current-password"
            spellcheck={false}
            required
            autoFocus
            value={token}
            aria-invalid={refusal !== undefined}
            aria-describedby={refusal === undefined ? 'token-hint' : 'token-refusal token-hint'}
            onInput={(event) => setToken(event.currentTarget.value)}
          />
        </label>
        {refusal !== undefined && (
          <p class="failure" role="alert" id="token-refusal">
            {refusal}
          </p>
        )}
        <button type="submit" class="primary" disabled={asking}>
          Log in
        </button>
        <p class="muted" id="token-hint">
          On the host, <code>stasis remote grant NAME --role operator</code> makes one. It is traded for a
          session, which lasts for an hour without use and twelve in all.
        </p>
      </form>
    </main>
  );
}

function explain({ code, message }: StasisError): string {
  return code === 'unauthorized'
    ? 'This token is not good here: it is mistyped, expired, revoked, or for another host.'
    : message;
}
