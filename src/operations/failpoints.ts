/**
 * Named places where a test can make the world end. `STASIS_FAILPOINT=save/switch:before=kill` kills the daemon the
 * way a power cut does just before that step of a save; `=error` lets the step fail; `=guest` kills the guest's QEMU;
 * `=halt` lets the daemon stand still (SIGSTOP) until it gets SIGCONT, so that a test can change the world meanwhile.
 * Every journaled step has two, `KIND/STEP:before` and `KIND/STEP:after`; `KIND/record:after` stands where an operation is
 * recorded and nobody has been told of it; a few more stand inside a pause, where
 * nothing may be journaled. `STASIS_FAILPOINT_FILE=PATH` names a file that says the same and is read at each of them, so
 * that a daemon can be given others while it runs. There `#7=kill` is the seventh that is reached from then on, whichever it
 * is. Off unless one of the variables is set.
 */
import { readFile } from 'node:fs/promises';
import { StasisError } from '../errors.ts';

const ACTIONS = ['kill', 'error', 'guest', 'halt'] as const;
type Action = (typeof ACTIONS)[number];

export class Failpoints {
  readonly #actions: ReadonlyMap<string, Action>;
  readonly #file: string | undefined;
  readonly #onStrike: (name: string, action: string) => void;
  /** what the file said last, and how many were reached since it says so */
  #setting = '';
  #count = 0;

  /**
   * @param onStrike is told of each that strikes, before it does
   * @throws StasisError `invalid-request` for an action that doesn't exist
   */
  constructor(
    environment: NodeJS.ProcessEnv = {},
    onStrike: (name: string, action: string) => void = () => undefined,
  ) {
    this.#onStrike = onStrike;
    this.#actions = actionsOf(environment['STASIS_FAILPOINT'] ?? '');
    this.#file = environment['STASIS_FAILPOINT_FILE'];
  }

  /** @param killGuest ends the QEMU process of the guest that this is about, if it has one */
  async reach(name: string, killGuest: () => Promise<void>): Promise<void> {
    const action = this.#actions.get(name) ?? (await this.#inFile(name));
    if (action !== undefined) this.#onStrike(name, action);
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

  async #inFile(name: string): Promise<Action | undefined> {
    if (this.#file === undefined) return undefined;
    const setting = await readFile(this.#file, 'utf8');
    if (setting !== this.#setting) this.#count = 0;
    this.#setting = setting;
    this.#count += 1;
    const actions = actionsOf(setting);
    return actions.get(name) ?? actions.get(`#${this.#count}`);
  }
}

function actionsOf(setting: string): ReadonlyMap<string, Action> {
  const entries = setting.split(',').filter((entry) => entry !== '');
  return new Map(
    entries.map((entry) => {
      const [name = '', action = ''] = entry.split('=');
      const known = ACTIONS.find((candidate) => candidate === action);
      if (known === undefined)
        throw new StasisError(
          'invalid-request',
          `STASIS_FAILPOINT: "${entry}" is not NAME=${ACTIONS.join('|')}`,
        );
      return [name, known];
    }),
  );
}
