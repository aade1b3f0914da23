/** A lab whose host can reboot: all processes end, and the next daemon reads another boot id. */
import { randomUUID } from 'node:crypto';
import { mkdir, mkdtemp, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Outcome, Policy } from '../../src/api/schemas.ts';

import { killAll } from './kill-all.ts';
import { Lab } from './lab.ts';

export class HostLab implements AsyncDisposable {
  readonly lab: Lab;
  readonly #bootIdFile: string;

  private constructor(lab: Lab, bootIdFile: string) {
    this.lab = lab;
    this.#bootIdFile = bootIdFile;
  }

  /** @param settings of its `stasis.yaml` */
  static async create(settings = ''): Promise<HostLab> {
    const home = await mkdtemp(join(tmpdir(), 'stasis-host-'));
    await mkdir(join(home, 'config'));
    await writeFile(join(home, 'config/stasis.yaml'), settings);
    const bootIdFile = join(home, 'boot_id');
    await writeFile(bootIdFile, `${randomUUID()}\n`);
    return new HostLab(await Lab.open(home, { STASIS_BOOT_ID_FILE: bootIdFile }), bootIdFile);
  }

  /** A guest that runs, with known memory. */
  async running(name: string, policy: Partial<Policy>, seed: number, cmdline = ''): Promise<void> {
    await using witness = await this.lab.running(name, { disks: 1, cmdline, extra: { policy } });
    await witness.fill(seed, 8);
  }

  /** Starts a daemon of the same boot. */
  async startDaemon(environment: NodeJS.ProcessEnv = {}): Promise<void> {
    await this.lab.startDaemon({ STASIS_BOOT_ID_FILE: this.#bootIdFile, ...environment });
  }

  /** What a power cut does: nothing is told, and nothing runs on. */
  async goDown(): Promise<void> {
    await this.lab.endDaemon('SIGKILL');
    await killAll(await this.lab.qemuProcesses());
  }

  /** The host boots: a new boot id, and a daemon that serves. */
  async boot(environment: NodeJS.ProcessEnv = {}): Promise<void> {
    await writeFile(this.#bootIdFile, `${randomUUID()}\n`);
    await this.startDaemon(environment);
  }

  /** Resolves when the policies for the boot have been carried out, with how that went for each guest. */
  async booted(): Promise<Record<string, Outcome>> {
    for (const { id, kind, state } of await this.lab.client.listOperations())
      if (kind === 'restore-all' && state === 'running') await this.lab.client.followOperation(id);
    const { boot } = await this.lab.client.hostStatus();
    return byName(boot.guests);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.lab[Symbol.asyncDispose]();
  }
}

export function byName(outcomes: readonly Outcome[]): Record<string, Outcome> {
  return Object.fromEntries(outcomes.map((outcome) => [outcome.name, outcome]));
}
