/**
 * What is sent again when its connection broke: what only reads, and what brings an idempotency key, by which the daemon knows
 * what it has begun already. Where no daemon answered at all, nothing is: whoever asks is told at once.
 */
import { StasisError } from '../errors.ts';
import { sendForJson, type Exchange, type Transport } from './exchange.ts';
import { Reconnection, type Revive } from './reconnection.ts';

export const KEY_HEADER = 'idempotency-key';

/** May this be sent twice? */
export function isRepeatable({ method, headers }: Exchange): boolean {
  return method === 'GET' || headers?.[KEY_HEADER] !== undefined;
}

/** Had the request been on its way when its connection broke? A transport says so in the details of its error. */
export function wasSent(error: unknown): boolean {
  return error instanceof StasisError && error.details?.['sent'] === true;
}

/**
 * An exchange and its JSON reply, again when the connection breaks and it may be. Throws as `sendForJson` does; `daemon-unreachable`
 * when it broke 10 times in a row.
 */
export async function sendPatiently<T extends object>(
  transport: Transport,
  exchange: Exchange,
  revive: Revive | undefined,
): Promise<T> {
  const reconnection = new Reconnection(revive, exchange.signal);
  let sent = false;
  for (;;) {
    try {
      return await sendForJson<T>(transport, exchange);
    } catch (error) {
      sent ||= wasSent(error);
      if (!sent || !isRepeatable(exchange)) throw error;
      await reconnection.after(error);
    }
  }
}
