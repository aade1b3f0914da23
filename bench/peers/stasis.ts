/** Stasis as it is built, its daemon in a home of its own. */
import { join } from 'node:path';
import type { StasisClient } from '../../src/client/index.ts';
import { Lab } from '../../test/support/lab.ts';
import type { Witness } from '../../test/support/witness.ts';
import { connectWitness, run, timed, type LiveSave, type Peer, type StoppedSave } from './peer.ts';

export const GUEST = 'bench';
export const LIVE = 'live';
const PROGRAM = join(import.meta.dirname, '../../bin/stasis');

export class Stasis implements Peer {
  readonly name: 'Stasis' | 'Stasis, huge pages';
  readonly client: StasisClient;
  readonly #lab: Lab;
  readonly #memoryMiB: number;
  readonly #hugepages: boolean;

  private constructor(lab: Lab, memoryMiB: number, hugepages: boolean) {
    this.name = hugepages ? 'Stasis, huge pages' : 'Stasis';
    this.#lab = lab;
    this.client = lab.client;
    this.#memoryMiB = memoryMiB;
    this.#hugepages = hugepages;
  }

  static async create(directory: string, memoryMiB: number, hugepages = false): Promise<Stasis> {
    return new Stasis(await Lab.create(directory), memoryMiB, hugepages);
  }

  async boot(): Promise<void> {
    const size = `${this.#memoryMiB}MiB`;
    const extra = this.#hugepages ? { memory: { size, hugepages: true } } : {};
    await this.#lab.define(GUEST, { memory: size, extra });
    await this.client.start(GUEST);
  }

  async pid(guest: string = GUEST): Promise<number> {
    const { pid } = await this.client.getGuest(guest);
    if (pid === null) throw new Error(`${guest} has no process`);
    return pid;
  }

  async witness(guest: string = GUEST): Promise<Witness> {
    return connectWitness(join(await this.runDirectory(guest), 'serial.sock'));
  }

  async runDirectory(guest: string): Promise<string> {
    return `/proc/${await this.pid(guest)}/cwd`;
  }

  async saveLive(signal: AbortSignal): Promise<LiveSave> {
    const { ms, result } = await timed(async () => {
      const { id } = await this.client.createSaveImage(GUEST, { name: LIVE, live: true }, { wait: false });
      const cancel = (): void => void this.client.cancelOperation(id).catch(() => undefined);
      signal.addEventListener('abort', cancel);
      try {
        return await this.client.followOperation(id);
      } finally {
        signal.removeEventListener('abort', cancel);
      }
    });
    signal.throwIfAborted();
    const { image } = result.result;
    if (image === undefined) throw new Error(`the save failed: ${JSON.stringify(result.error)}`);
    return {
      pauseMs: image.pauseMs ?? Number.NaN,
      saveMs: ms,
      storedBytes: image.storedBytes,
      predictedPauseMs: image.predictedPauseMs ?? undefined,
      method: image.method,
    };
  }

  async restoreLive(): Promise<void> {
    await this.client.restoreSaveImage(GUEST, LIVE);
  }

  /** The same as a user's command: the whole process, from its start to its end. */
  async restoreLiveByCommand(): Promise<void> {
    await run(PROGRAM, ['restore', GUEST, LIVE, '--yes'], {
      env: { ...process.env, STASIS_HOME: this.#lab.home },
    });
  }

  async dropLive(): Promise<void> {
    await this.client.deleteSaveImage(GUEST, LIVE);
  }

  async saveAndStop(): Promise<StoppedSave> {
    const { ms, result } = await timed(() => this.client.createSaveImage(GUEST));
    return { saveMs: ms, storedBytes: result.storedBytes };
  }

  async startAgain(): Promise<void> {
    await this.client.start(GUEST);
  }

  /** The same, with all of its memory loaded first. */
  async startEagerly(): Promise<void> {
    await this.client.restoreSaveImage(GUEST, undefined, { method: 'eager', delete: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#lab[Symbol.asyncDispose]();
  }
}
