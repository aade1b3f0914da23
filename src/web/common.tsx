/** Small things that every view is made of. */
import type { ComponentChildren, JSX } from 'preact';
import { signal } from '@preact/signals';
import type { Role } from '../api/constants.ts';
import type { GuestState, Operation } from '../api/schemas.ts';
import type { ErrorBody } from '../errors.ts';
import { formatAge, formatBytes, formatDate } from '../units.ts';
import { may, principal } from './store.ts';

/** One clock for all ages that are shown. */
const now = signal(Date.now());
const CLOCK_MS = 10_000;
setInterval(() => {
  now.value = Date.now();
}, CLOCK_MS);

export function State({ state }: { state: GuestState }) {
  return (
    <span class={`state ${state}`}>
      <span class="dot" aria-hidden="true" />
      {state}
    </span>
  );
}

/** How long ago, which goes on while one looks at it. */
export function Age({ at }: { at: string }) {
  return (
    <time dateTime={at} title={formatDate(at)}>
      {formatAge(at, Math.max(now.value, Date.parse(at)))}
    </time>
  );
}

export function Progress({ operation }: { operation: Operation }) {
  const { kind, image, phase, bytesDone, bytesTotal } = operation;
  const what = `${kind}${image === null ? '' : ` ${image}`}`;
  const known = bytesTotal > 0;
  const percent = known ? Math.min(100, Math.round((bytesDone / bytesTotal) * 100)) : undefined;
  return (
    <div class="progress">
      <div class="progress-text">
        <span>{what}</span>
        <span class="muted">
          {phase}
          {known && ` · ${formatBytes(bytesDone)} of ${formatBytes(bytesTotal)}`}
        </span>
      </div>
      <progress aria-label={`${what} of ${operation.guest}`} max={100} value={percent} />
    </div>
  );
}

type ButtonProps = Omit<JSX.IntrinsicElements['button'], 'role' | 'title'>;

/** A button for what needs a role: whoever hasn't got it is told so, and not refused afterwards. */
export function RoleButton({ needs = 'operator', disabled, ...rest }: ButtonProps & { needs?: Role }) {
  const reason = may(needs) ? undefined : reasonOf(needs);
  return (
    <button type="button" {...rest} disabled={reason !== undefined || disabled === true} title={reason} />
  );
}

/** In place of what only a role may see. */
export function NotForRole({ needs, what }: { needs: Role; what: string }) {
  return (
    <Empty title={`${what} is not shown`}>
      <p>{reasonOf(needs)}</p>
    </Empty>
  );
}

function reasonOf(needs: Role): string {
  const { name = 'nobody', role = 'nobody' } = principal.value ?? {};
  return `This needs the role ${needs}; ${name} is ${role} here.`;
}

/** Where something will be, while it is fetched. */
export function Loading({ rows = 6 }: { rows?: number }) {
  return (
    <div class="loading" role="status" aria-label="Loading">
      {Array.from({ length: rows }, (_, index) => (
        <div class="skeleton" key={index} />
      ))}
    </div>
  );
}

export function Empty({ title, children }: { title: string; children?: ComponentChildren }) {
  return (
    <div class="empty">
      <h2>{title}</h2>
      {children}
    </div>
  );
}

export function Failure({ error }: { error: ErrorBody }) {
  const hint = error.details?.['hint'];
  return (
    <div class="failure" role="alert">
      <strong>{error.message}</strong>
      {typeof hint === 'string' && <p>{hint}</p>}
      <p class="muted">{error.code}</p>
    </div>
  );
}

export function Fields({ of }: { of: readonly (readonly [string, ComponentChildren])[] }) {
  return (
    <dl class="fields">
      {of.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}
