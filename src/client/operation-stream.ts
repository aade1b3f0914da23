/**
 * From a request to the end of the operation it began. The daemon streams the operation over the reply of the
 * very request, so that a command is one exchange; if the daemon is restarted meanwhile, the operation goes on
 * in its successor, and so does the watching.
 */
import type { Operation } from '../api/schemas.ts';
import { StasisError } from '../errors.ts';
import { readText, send, type Exchange, type Reply, type Transport } from './exchange.ts';
import { Reconnection, type Revive } from './reconnection.ts';
import { isRepeatable, wasSent } from './retry.ts';
import { readSse } from './sse.ts';
import { parseWire } from './wire.ts';

export interface Watching {
  readonly onProgress?: ((operation: Operation) => void) | undefined;
  readonly revive?: Revive | undefined;
}

/**
 * Sends `exchange` and resolves with the operation once it is done, failed or cancelled: how it ended is for the
 * caller to judge. When the connection breaks the watching is repeated; the request, only before its answer and if it may be.
 *
 * @throws the daemon's refusal; `daemon-unreachable`; the reason of the exchange's signal. The signal ends the
 *   watching, never the operation.
 */
export async function runOperation(
  transport: Transport,
  exchange: Exchange,
  watching: Watching,
): Promise<Operation> {
  const reconnection = new Reconnection(watching.revive, exchange.signal);
  let attempt: Exchange = streamed(exchange);
  let known: string | undefined;
  let sent = false;
  for (;;) {
    try {
      const reply = await send(transport, attempt);
      known ??= operationPath(reply.header('location'));
      for await (const operation of operationsIn(attempt, reply)) {
        reconnection.succeeded();
        known = `/v1/operations/${operation.id}`;
        watching.onProgress?.(operation);
        if (operation.state !== 'running') return operation;
      }
      throw new StasisError('daemon-unreachable', 'the daemon ended the stream before the operation ended');
    } catch (error) {
      sent ||= wasSent(error);
      if (known === undefined && !(sent && isRepeatable(exchange))) throw error;
      await reconnection.after(error);
      if (known !== undefined) attempt = streamed({ method: 'GET', path: known, signal: exchange.signal });
    }
  }
}

function streamed(exchange: Exchange): Exchange {
  return { ...exchange, headers: { ...exchange.headers, accept: 'text/event-stream' } };
}

/** `Location` names the operation before the first message does. */
function operationPath(location: string | undefined): string | undefined {
  return location?.startsWith('/v1/operations/') === true ? location : undefined;
}

/** The operations in a reply: many in an event stream, one in a plain 202. */
async function* operationsIn(exchange: Exchange, reply: Reply): AsyncGenerator<Operation, void, undefined> {
  if (reply.header('content-type')?.startsWith('text/event-stream') !== true) {
    yield parseWire<Operation>(await readText(reply, exchange));
    return;
  }
  for await (const message of readSse(reply.body)) {
    if (message.event === 'operation') yield parseWire<Operation>(message.data);
  }
}
