import assert from 'node:assert/strict';
import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { addOverlayNode, headNodes, switchDisks } from '../../src/qemu/block/block-graph.ts';
import { streamInto } from '../../src/qemu/block/block-merge.ts';
import type { CaptureMethod, CaptureMethodName, CaptureResult } from '../../src/qemu/capture/capture.ts';
import { bringMemory } from '../../src/qemu/restore/memory-arrival.ts';
import { verifyMemoryFile } from '../../src/qemu/memory/memory-file.ts';
import { STREAM_OFFSET } from '../../src/qemu/migration.ts';
import { killQemu, launchQemu, type QemuProcess } from '../../src/qemu/process/process.ts';
import type { QmpClient } from '../../src/qemu/qmp/client.ts';
import type { RestoreMethod } from '../../src/qemu/restore/restore.ts';
import { resumeGuest } from '../../src/qemu/process/run-state.ts';
import { testBoot } from '../support/lab.ts';
import { Witness, type WitnessStatus } from '../support/witness.ts';
import { diskArgs, run, savedMemory, type Lab } from './lab.ts';

export const MEMORY_BYTES = 128 << 20;
const MACHINE = 'pc-q35-10.0';
/** The guest's disks, by the ids of their devices. */
const DISKS = ['one', 'two'] as const;
/** Where the counter stands on each disk: see test-guest/disks.c. */
const COUNTER_BLOCK = (1 << 20) / 4096;

/** A save image as the tests of src/qemu know it. */
export interface Captured {
  readonly method: CaptureMethodName;
  readonly file: string;
  /** What the disks were, in the order of `DISKS`. */
  readonly layers: readonly string[];
  /** What the counter was on each. */
  readonly counters: readonly number[];
  readonly result: CaptureResult;
}

/** Machine, firmware, kernel and devices, the same for a guest that is saved and one that is restored. */
export function machineArgs(layers: readonly string[]): readonly string[] {
  const { kernel, initrd, cmdline } = testBoot('interval=0');
  return [
    ...['-accel', 'tcg', '-machine', MACHINE, '-cpu', 'max', '-m', String(MEMORY_BYTES >> 20)],
    ...['-nodefaults', '-no-user-config', '-display', 'none'],
    ...['-kernel', kernel, '-initrd', initrd, '-append', cmdline],
    ...['-chardev', 'socket,id=serial,path=serial.sock,server=on,wait=off'],
    ...['-device', 'isa-serial,chardev=serial'],
    ...DISKS.flatMap((disk, index) => diskArgs(disk, `first-${disk}`, layers[index] ?? '')),
  ];
}

/** The test guest on two disks: it hammers one counter in memory and on both of them as fast as it can. */
export class WitnessGuest implements AsyncDisposable {
  readonly process: QemuProcess;
  readonly #lab: Lab;
  readonly #name: string;
  #layers: readonly string[];
  #made = 0;
  /** Of its memory: some methods bring it after the guest runs. */
  #arrival: Promise<void> = Promise.resolve();

  private constructor(lab: Lab, name: string, process: QemuProcess, layers: readonly string[]) {
    this.#lab = lab;
    this.#name = name;
    this.process = process;
    this.#layers = layers;
  }

  static async boot(lab: Lab, name: string): Promise<WitnessGuest> {
    const layers = await Promise.all(DISKS.map((disk) => lab.disk(`${name}-${disk}`)));
    return await WitnessGuest.#launch(lab, name, layers, []);
  }

  /** A guest beside the one that was captured, on overlays of its own. It runs. */
  static async restore(
    lab: Lab,
    name: string,
    { file, layers }: Captured,
    method: RestoreMethod,
  ): Promise<WitnessGuest> {
    const saved = await savedMemory(file);
    const overlays = await Promise.all(
      DISKS.map((disk, index) => lab.overlay(`${name}-${disk}`, layers[index] ?? '')),
    );
    const guest = await WitnessGuest.#launch(lab, name, overlays, method.machineArgs(saved));
    await method.load(guest.process, saved);
    await resumeGuest(guest.qmp);
    guest.#arrival = bringMemory(guest.process, (reason) => Promise.reject(new Error(reason)));
    guest.#arrival.catch(() => undefined); // whoever needs all of the memory is told
    return guest;
  }

  static async #launch(lab: Lab, name: string, layers: readonly string[], args: readonly string[]) {
    const process = await launchQemu({
      binary: lab.binary.path,
      runDirectory: lab.runDirectory(`${name}-run`),
      args: [...machineArgs(layers), ...args],
    });
    return new WitnessGuest(lab, name, process, layers);
  }

  get qmp(): QmpClient {
    return this.process.qmp;
  }

  /** Resolves when all of its memory is there. */
  arrived(): Promise<void> {
    return this.#arrival;
  }

  /** Whoever asks the guest; once it answers. */
  async witness(): Promise<Witness> {
    const witness = await Witness.connect(join(this.process.runDirectory, 'serial.sock'));
    await witness.ping(60_000);
    return witness;
  }

  /** Captures memory and both disks of one instant; the guest runs on. @param inPause what else to do in that instant */
  async capture(method: CaptureMethod, inPause?: () => Promise<void>): Promise<Captured> {
    await this.arrived();
    const heads = await headNodes(this.qmp);
    const name = `${this.#name}-${(this.#made += 1)}`;
    const overlays = await Promise.all(
      DISKS.map(async (disk, index) => {
        const path = await this.#lab.overlay(`${name}-${disk}`, this.#layers[index] ?? '');
        const nodeName = `over-${this.#made}-${disk}`;
        await addOverlayNode(this.qmp, { nodeName, path });
        return { path, switch: { node: heads.get(disk) ?? '', overlay: nodeName } };
      }),
    );
    const file = this.#lab.path(`${name}-memory`);
    const switches = overlays.map((overlay) => overlay.switch);
    const onPaused = async (): Promise<void> => {
      await switchDisks(this.qmp, switches);
      await inPause?.();
    };
    const result = await method.capture({ qmp: this.qmp, file, onPaused });
    if (method.name === 'stopped') await resumeGuest(this.qmp);
    const layers = this.#layers;
    this.#layers = overlays.map(({ path }) => path);
    await verifyMemoryFile(file, {
      offset: STREAM_OFFSET,
      machineType: MACHINE,
      memoryBytes: MEMORY_BYTES,
    });
    const counters = await countersOn(this.#lab, layers);
    return { method: method.name, file, layers, counters, result };
  }

  /** Gives the disks layers that stand alone, so that chains don't grow with the number of captures. */
  async flatten(): Promise<void> {
    for (const [disk, node] of await headNodes(this.qmp))
      await streamInto(this.qmp, { jobId: `flatten-${disk}`, node });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await killQemu(this.process.runDirectory);
    for (const layer of this.#layers) await rm(layer, { force: true });
  }
}

/** What the guest says of itself: memory and all disks are of one instant, and no page of memory is wrong. */
export async function assertWhole(witness: Witness): Promise<WitnessStatus> {
  await witness.ping();
  const { errors } = await witness.checksum();
  const status = await witness.status();
  assert.equal(errors, 0, 'no page of memory is wrong');
  assert.equal(status.memoryErrors, 0);
  assert.equal(status.mismatches, 0, `disks and memory agree: ${JSON.stringify(status.firstMismatch)}`);
  assert.equal(status.firstIoError, null, 'no disk reported an error');
  return status;
}

/** The counter on each disk, read from the files. While one disk was written the other may be one behind. */
async function countersOn(lab: Lab, layers: readonly string[]): Promise<readonly number[]> {
  return await Promise.all(
    layers.map(async (layer) => {
      const block = `${layer}.counter`;
      const skip = `skip=${COUNTER_BLOCK}`;
      const count = `count=${COUNTER_BLOCK + 1}`; // what is skipped included
      const copy = ['-f', 'qcow2', '-O', 'raw', 'bs=4096', skip, count, `if=${layer}`, `of=${block}`];
      await run(lab.binary.imageToolPath, ['dd', '-U', ...copy]);
      const counter = Number((await readFile(block)).readBigUInt64LE(8));
      await rm(block);
      return counter;
    }),
  );
}
