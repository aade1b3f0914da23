/**
 * ^C while an operation runs. The first asks the daemon to cancel it, the second leaves: an operation belongs to
 * the daemon, and to leave it is not to end it.
 */
import type { Operation } from '../api/schemas.ts';
import type { StasisClient } from '../client/stasis-client.ts';
import { StasisError } from '../errors.ts';

export class Interrupt implements Disposable {
  readonly #client: StasisClient;
  readonly #say: (text: string) => void;
  readonly #leave = new AbortController();
  #operation: Operation | undefined;
  #asked = false;

  /** @param say tells the person what their ^C did */
  constructor(client: StasisClient, say: (text: string) => void) {
    this.#client = client;
    this.#say = say;
    process.on('SIGINT', this.#interrupted);
  }

  /** Aborted when the person leaves; its reason is the error to end with. */
  get signal(): AbortSignal {
    return this.#leave.signal;
  }

  update(operation: Operation): void {
    this.#operation = operation;
  }

  [Symbol.dispose](): void {
    process.off('SIGINT', this.#interrupted);
  }

  readonly #interrupted = (): void => {
    const operation = this.#operation;
    if (operation === undefined || this.#asked) {
      this.#leave.abort(left(operation));
      return;
    }
    this.#asked = true;
    if (!operation.cancellable) {
      this.#say(`this can't be cancelled any more (${operation.phase}); ^C again leaves it to the daemon`);
      return;
    }
    this.#say('cancelling; ^C again leaves it to the daemon');
    this.#client.cancelOperation(operation.id, { signal: this.signal }).catch((error: unknown) => {
      if (!this.signal.aborted) this.#say(`could not cancel: ${StasisError.from(error).message}`);
    });
  };
}

function left(operation: Operation | undefined): StasisError {
  if (operation === undefined)
    return new StasisError('cancelled', 'interrupted before the daemon had answered');
  return new StasisError(
    'cancelled',
    `left while ${operation.kind} of ${operation.guest} goes on in the daemon`,
    {
      guest: operation.guest,
      details: { operation: operation.id, hint: `stasis ops ${operation.id}` },
    },
  );
}
