import type { QemuVersion, QmpEvent } from './commands.ts';
import { isDataOf } from './results.ts';

export interface QmpGreeting {
  readonly version: QemuVersion;
  /** as `qemu-system-… --version` tells it: `10.0.2 (Debian 1:10.0.2+ds-2)` */
  readonly versionText: string;
  /** whether some commands may overtake others */
  readonly allowsOutOfBand: boolean;
}

/** What a QMP server may send, after its shape was checked. Contents of `result` are checked by who knows the command. */
export type QmpMessage =
  | { readonly kind: 'greeting'; readonly greeting: QmpGreeting }
  | { readonly kind: 'reply'; readonly id: number; readonly result: unknown }
  | { readonly kind: 'error'; readonly id: number | undefined; readonly class: string; readonly desc: string }
  | { readonly kind: 'event'; readonly event: QmpEvent };

/**
 * One line of QMP (https://www.qemu.org/docs/master/interop/qmp-spec.html).
 * @throws SyntaxError when the line is no JSON or not a message of the protocol
 */
export function parseQmpMessage(line: string): QmpMessage {
  const message: unknown = JSON.parse(line);
  if (!isRecord(message)) throw new SyntaxError('a QMP message must be an object');
  if ('event' in message) return { kind: 'event', event: eventOf(message) };
  if ('return' in message) return { kind: 'reply', id: numberOf(message, 'id'), result: message['return'] };
  if (isRecord(message['error'])) {
    // Without an id when QEMU could not even parse the command.
    const id = typeof message['id'] === 'number' ? message['id'] : undefined;
    const { class: errorClass, desc } = message['error'];
    return { kind: 'error', id, class: String(errorClass), desc: String(desc) };
  }
  if (isRecord(message['QMP'])) return { kind: 'greeting', greeting: greetingOf(message['QMP']) };
  throw new SyntaxError('not a QMP message');
}

function eventOf(message: Record<string, unknown>): QmpEvent {
  const { event, timestamp } = message;
  if (typeof event !== 'string' || !isRecord(timestamp))
    throw new SyntaxError('a QMP event without name or time');
  const timestampMs = numberOf(timestamp, 'seconds') * 1e3 + numberOf(timestamp, 'microseconds') / 1e3;
  const data = isRecord(message['data']) ? message['data'] : {};
  if (!isDataOf(event, data)) throw new SyntaxError(`an event ${event} that tells nothing`);
  // The one place where an event gets a type of ours. One of a name that we don't know passes too, and matches nobody's filter.
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion
  return { event, data, timestampMs } as QmpEvent;
}

function greetingOf(greeting: Record<string, unknown>): QmpGreeting {
  const { capabilities } = greeting;
  return {
    ...versionOf(greeting),
    allowsOutOfBand: Array.isArray(capabilities) && capabilities.includes('oob'),
  };
}

function versionOf(greeting: Record<string, unknown>): Pick<QmpGreeting, 'version' | 'versionText'> {
  const version = greeting['version'];
  if (!isRecord(version) || !isRecord(version['qemu']))
    throw new SyntaxError('a QMP greeting without a version');
  const { qemu, package: build } = version;
  const [major, minor, micro] = [numberOf(qemu, 'major'), numberOf(qemu, 'minor'), numberOf(qemu, 'micro')];
  const suffix = typeof build === 'string' && build !== '' ? ` (${build})` : '';
  return { version: { major, minor, micro }, versionText: `${major}.${minor}.${micro}${suffix}` };
}

function numberOf(record: Record<string, unknown>, key: string): number {
  const value = record[key];
  if (typeof value !== 'number') throw new SyntaxError(`"${key}" of a QMP message must be a number`);
  return value;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
