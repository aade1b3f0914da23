/**
 * Named places where a test can make the world end. `STASIS_FAILPOINT=save/switch:before=kill` kills the daemon the
 * way a power cut does just before that step of a save; `=error` lets the step fail; `=guest` kills the guest's QEMU;
 * `=halt` lets the daemon stand still (SIGSTOP) until it gets SIGCONT, so that a test can change the world meanwhile.
 * Every journaled step has two, `KIND/STEP:before` and `KIND/STEP:after`; a few more stand inside a pause, where
 * nothing may be journaled. Off unless the variable is set.
 */
import { StasisError } from '../errors.ts';

const ACTIONS = ['kill', 'error', 'guest', 'halt'] as const;
type Action = (typeof ACTIONS)[number];

export class Failpoints {
  readonly #actions: ReadonlyMap<string, Action>;

  /** @throws StasisError `invalid-request` for an action that doesn't exist */
  constructor(setting: string | undefined) {
    const entries = (setting ?? '').split(',').filter((entry) => entry !== '');
    this.#actions = new Map(
      entries.map((entry) => {
        const [name = '', action = ''] = entry.split('=');
        const known = ACTIONS.find((candidate) => candidate === action);
        if (known === undefined) {
          throw new StasisError(
            'invalid-request',
            `STASIS_FAILPOINT: "${entry}" is not NAME=${ACTIONS.join('|')}`,
          );
        }
        return [name, known];
      }),
    );
  }

  /** @param killGuest ends the QEMU process of the guest that this is about, if it has one */
  async reach(name: string, killGuest: () => Promise<void>): Promise<void> {
    const action = this.#actions.get(name);
    switch (action) {
      case undefined:
        return;
      case 'kill':
        process.kill(process.pid, 'SIGKILL');
        return new Promise(() => undefined);
      case 'halt':
        process.kill(process.pid, 'SIGSTOP');
        return;
      case 'guest':
        return killGuest();
      case 'error':
        throw new StasisError('interrupted', `failpoint ${name}`);
      default:
        return action satisfies never;
    }
  }
}
