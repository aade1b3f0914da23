/** Each mutating call into the audit trail, once: as soon as it is known how it is answered. */
import { hash } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import type { FastifyRequest } from 'fastify';
import type { AuditInput } from '../catalog/audit.ts';
import { callerOf } from './caller.ts';
import { redacted } from './redact.ts';
import type { ViewContext } from './views.ts';

/** A definition with hundreds of devices is told by its hash. */
const MAX_PARAMETERS_CHARS = 4096;
const MAX_MESSAGE_CHARS = 1024;

interface Answer {
  /** `accepted`, `done`, or the code of an error */
  readonly outcome: string;
  readonly operation?: string;
  readonly guest?: string;
  readonly image?: string | null;
  readonly message?: string;
}

const recorded = new WeakSet<IncomingMessage>();

/** What only reads is not recorded. A trail that can't be written, say on a full disk, keeps nobody from an answer. */
export async function recordCall(
  context: ViewContext,
  request: FastifyRequest,
  answer: Answer,
): Promise<void> {
  const { method, raw, routeOptions, url } = request;
  if (method === 'GET' || method === 'HEAD' || recorded.has(raw)) return;
  recorded.add(raw);
  const named = namesIn(request);
  const action = `${method} ${routeOptions.url ?? url.slice(0, 200)}`;
  const { outcome, operation, message } = answer;
  const about = { guest: answer.guest ?? named.guest, image: answer.image ?? named.image };
  const parameters = { ...objectOf(request.query), ...objectOf(request.body) };
  await record(context, raw, {
    ...{ action, ...about, outcome, parameters, request: request.id },
    ...(operation === undefined ? {} : { operation }),
    ...(message === undefined ? {} : { message }),
  });
}

/** The opening of a guest's console or display, through which anything can be typed. */
export async function recordChannel(
  context: ViewContext,
  request: IncomingMessage,
  { guest, channel, outcome }: { readonly guest: string; readonly channel: string; readonly outcome: string },
): Promise<void> {
  await record(context, request, { action: `open ${channel}`, guest, image: null, outcome });
}

type Call = Pick<AuditInput, 'action' | 'guest' | 'image'> &
  Omit<Answer, 'guest' | 'image'> & { readonly parameters?: object; readonly request?: string };

async function record({ audit, host }: ViewContext, raw: IncomingMessage, call: Call): Promise<void> {
  const { action, guest, image, outcome, operation = null, request = null } = call;
  const caller = await callerOf(raw);
  const about = { action, guest, image, outcome, operation };
  host.log.info({ ...about, caller }, `${action}: ${outcome}`);
  try {
    await audit.append({
      ...{ ...about, at: new Date().toISOString(), kind: 'call', caller: JSON.stringify(caller), request },
      parameters: told(call.parameters ?? {}),
      message: call.message?.slice(0, MAX_MESSAGE_CHARS) ?? null,
    });
  } catch (error) {
    host.log.error({ err: error, ...about }, 'a call could not be recorded in the audit trail');
  }
}

function told(parameters: object): string | null {
  if (Object.keys(parameters).length === 0) return null;
  const text = JSON.stringify(redacted(parameters));
  if (text.length <= MAX_PARAMETERS_CHARS) return text;
  return JSON.stringify({ characters: text.length, sha256: hash('sha256', text, 'hex') });
}

/** Whom a request is about, by its address, or by what it carries. */
function namesIn({ params, body }: FastifyRequest): { guest: string | null; image: string | null } {
  const address = objectOf(params);
  const carried = objectOf(body);
  const image = address['image'] ?? (address['guest'] === undefined ? undefined : carried['name']);
  return {
    guest: nameOf(address['guest'] ?? objectOf(carried['definition'])['name']),
    image: nameOf(image),
  };
}

function nameOf(value: unknown): string | null {
  return typeof value === 'string' ? value.slice(0, 200) : null;
}

function objectOf(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? { ...value } : {};
}
