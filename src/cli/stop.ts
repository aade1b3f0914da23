/** ^C, and the signals that mean the same, for a command that does the work itself. */
import { StasisError } from '../errors.ts';

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

export class Stop implements Disposable {
  readonly #controller = new AbortController();

  constructor() {
    for (const signal of SIGNALS) process.on(signal, this.#stop);
  }

  /** Aborted when the person has had enough; its reason is the error to end with, if that is one. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  [Symbol.dispose](): void {
    for (const signal of SIGNALS) process.off(signal, this.#stop);
  }

  readonly #stop = (): void => this.#controller.abort(new StasisError('cancelled', 'interrupted'));
}
